/** The rules, each with the play that shows whether an agent keeps it. test/unit/agents/conformance.test.ts has an agent that breaks each. */
import { LEASE_MS, MAX_PAYLOAD_BYTES, SESSION_SILENCE_MS, type Json } from '../../spec/protocol.ts'
import { Broken, type Stage } from './stage.ts'
import type { Request } from './gateway.ts'

export interface Rule {
  readonly id: string
  readonly text: string
  readonly play: (stage: Stage) => Promise<void>
}

/** Nothing is promised about how long an idle agent waits; this many requests a second are no long poll. */
const MAX_IDLE_PER_S = 10
/** After errors. */
const MAX_RETRIES_PER_S = 40
const IDLE_MS = 2_000
/** The gateway is away for so long. */
const AWAY_MS = 1_500
/** From SIGTERM to SIGKILL. */
const STOP_MS = 10_000
/** What ready_timeout is by default. */
const START_MS = 30_000
const UNICODE = ' ü 漢字 🚀 \u00a0'

const error = (code: string): unknown => ({ error: { code, message: 'as the kit says' } })
const isEnd = ({ path, body }: Request): boolean => {
  if (path === '/v1/complete' || path === '/v1/fail') return true
  const done = path === '/v1/lease' ? (body as { readonly done?: unknown } | null)?.done : null
  return Array.isArray(done) && done.length > 0
}
/** Makes the first text in it longer. */
function lengthen(input: Json, by: string): Json | null {
  if (typeof input === 'string') return input + by
  if (Array.isArray(input)) {
    for (const [index, item] of input.entries()) {
      const longer = lengthen(item, by)
      if (longer !== null) return input.with(index, longer)
    }
    return null
  }
  if (typeof input !== 'object' || input === null) return null
  for (const [name, value] of Object.entries(input)) {
    const longer = lengthen(value as Json, by)
    if (longer !== null) return { ...input, [name]: longer }
  }
  return null
}
const once = (stage: Stage, lease: string): void => {
  const ends = stage.gateway.endsOf(lease).length
  if (ends !== 1) throw new Broken(`it ended one task ${ends} times, though the first was acknowledged`)
}

async function refused(stage: Stage, status: number): Promise<void> {
  await stage.start()
  let left = 3
  const seen: number[] = []
  stage.gateway.fault = (request) => {
    if (!isEnd(request) || left === 0) return null
    seen.push(request.at)
    left -= 1
    return { status, body: error(status === 429 ? 'too_many_requests' : 'unavailable') }
  }
  const lease = stage.gateway.task(stage.inputs.input)
  await stage.until(() => stage.gateway.accepted(lease) !== null, `it gave up the end of a task after HTTP ${status}`)
  once(stage, lease)
  // Then for every request, for a while.
  const before = stage.gateway.requests.length
  stage.gateway.fault = () => ({ status, body: error('unavailable') })
  await stage.pause(1_000)
  const tries = stage.gateway.requests.length - before
  if (tries > MAX_RETRIES_PER_S)
    throw new Broken(`it made ${tries} requests in a second, all refused with HTTP ${status}: wait between them`)
  stage.gateway.fault = () => null
  await stage.goesOn()
}

export const RULES: readonly Rule[] = [
  {
    id: 'connects',
    text: 'asks for work by POST /v1/lease within 30 s of its start',
    play: (stage) => stage.start(1, Math.min(START_MS, stage.patienceMs * 2)),
  },
  {
    id: 'token',
    text: 'sends the token of its file as "Authorization: Bearer" with each request',
    async play(stage) {
      await stage.start()
      await stage.ended(stage.gateway.task(stage.inputs.input))
      const expected = `Bearer ${stage.agent.token}`
      const wrong = stage.gateway.requests.find(({ headers }) => headers.authorization !== expected)
      if (wrong !== undefined)
        throw new Broken(
          `${wrong.method} ${wrong.path} came with ${wrong.headers.authorization === undefined ? 'no token' : 'another token'}`,
        )
    },
  },
  {
    id: 'well_formed',
    text: 'sends only what the protocol knows, and names only its own leases',
    async play(stage) {
      await stage.start()
      await stage.ended(stage.gateway.task(stage.inputs.input))
      await stage.ended(stage.gateway.task(stage.inputs.bad))
      const [problem] = stage.gateway.problems
      if (problem !== undefined) throw new Broken(problem)
    },
  },
  {
    id: 'long_poll',
    text: 'waits for work by wait_ms, not by asking again and again',
    async play(stage) {
      await stage.start()
      await stage.pause(500)
      const before = stage.gateway.requests.length
      await stage.pause(IDLE_MS)
      const requests = stage.gateway.requests.length - before
      if (requests > (MAX_IDLE_PER_S * IDLE_MS) / 1_000)
        throw new Broken(`${requests} requests in ${IDLE_MS / 1_000} s while there was no work`)
    },
  },
  {
    id: 'empty_answer',
    text: 'asks again when there was no task, also when the answer comes early',
    async play(stage) {
      stage.gateway.fault = ({ path, body }) => {
        const isFirst = path === '/v1/lease' && (body as { readonly want: number }).want > 0 && (empty += 1) <= 2
        return isFirst ? { status: 200, body: { tasks: [], settled: [], cancel: [] } } : null
      }
      let empty = 0
      await stage.start()
      await stage.goesOn()
    },
  },
  {
    id: 'slots',
    text: 'asks for at most AGENTCTL_CONCURRENCY tasks at once',
    async play(stage) {
      await stage.start(2)
      await stage.ended(stage.gateway.task(stage.inputs.input))
      const want = Math.max(...stage.gateway.leaseRequests.map(({ body }) => (body as { readonly want: number }).want))
      if (want > 2) throw new Broken(`it asked for ${want} tasks with AGENTCTL_CONCURRENCY=2`)
    },
  },
  {
    id: 'settles_once',
    text: 'completes a task, once',
    async play(stage) {
      await stage.start()
      const lease = stage.gateway.task(stage.inputs.input)
      await stage.completed(lease)
      await stage.goesOn()
      once(stage, lease)
    },
  },
  {
    id: 'batch',
    text: 'does each of the tasks that come in one answer',
    async play(stage) {
      await stage.start(3)
      const leases = Array.from({ length: 6 }, () => stage.gateway.task(stage.inputs.input))
      for (const lease of leases) await stage.ended(lease)
      for (const lease of leases) once(stage, lease)
    },
  },
  {
    id: 'fails_in_words',
    text: 'ends a task that it cannot do (a failure has a code and a message), and goes on',
    async play(stage) {
      await stage.start()
      const end = await stage.ended(stage.gateway.task(stage.inputs.bad))
      if (end.status === 'failed' && end.error.message === '') throw new Broken('the failure has no message')
      await stage.goesOn()
    },
  },
  {
    id: 'large_input',
    text: 'takes an input of 64 KiB',
    async play(stage) {
      const { input } = stage.inputs
      const large = lengthen(input, ' '.repeat(MAX_PAYLOAD_BYTES - Buffer.byteLength(JSON.stringify(input)) - 16))
      await stage.start()
      await stage.completed(stage.gateway.task(large ?? input))
    },
  },
  {
    id: 'unicode',
    text: 'takes and gives text in UTF-8 whole',
    async play(stage) {
      await stage.start()
      const lease = stage.gateway.task(lengthen(stage.inputs.input, UNICODE) ?? stage.inputs.input)
      await stage.completed(lease)
      const damaged = stage.gateway.requests.find(({ raw }) => raw.includes('\ufffd'))
      if (damaged !== undefined)
        throw new Broken(`${damaged.method} ${damaged.path} holds a replacement character: text was cut or misread`)
    },
  },
  {
    id: 'unknown_fields',
    text: 'is not put off by fields of a later version',
    async play(stage) {
      const extra = { x_list: [1, { y: null }], x_text: 'later', x_object: { tasks: [] } }
      stage.gateway.extra = { reply: extra, task: extra }
      await stage.start()
      await stage.completed(stage.gateway.task(stage.inputs.input))
      await stage.goesOn()
    },
  },
  {
    id: 'beats',
    text: 'beats for what it works on: every 5 s with a session, every 30 s without',
    async play(stage) {
      await stage.start()
      const lease = stage.slowTask()
      await stage.given(lease)
      const beat = (): boolean => (stage.gateway.beats.get(lease) ?? []).length > 0
      const within = stage.gateway.isSession ? SESSION_SILENCE_MS : LEASE_MS
      await stage.until(beat, `no beat for a task within ${within / 1_000} s`, within)
      if (!stage.gateway.isSession) return
      await stage.pause(SESSION_SILENCE_MS)
      const heard = stage.gateway.requests.map(({ at }) => at)
      const silence = Math.max(...heard.map((at, index) => (heard[index + 1] ?? Date.now()) - at))
      if (silence > SESSION_SILENCE_MS) throw new Broken(`its session was silent for ${silence} ms while it worked`)
    },
  },
  {
    id: 'cancel',
    text: 'stops a task when it is told to (an answer\'s "cancel"), and goes on',
    async play(stage) {
      await stage.start()
      const lease = stage.slowTask()
      await stage.given(lease)
      stage.gateway.cancel(lease)
      const told = stage.gateway.isSession ? SESSION_SILENCE_MS : LEASE_MS
      const next = stage.gateway.task(stage.inputs.input)
      await stage.until(() => stage.gateway.accepted(next) !== null, 'it did not go on after a task was cancelled', told + stage.patienceMs)
    },
  },
  {
    id: 'unavailable',
    text: 'sends again what was answered with 503, with pauses',
    play: (stage) => refused(stage, 503),
  },
  {
    id: 'too_many_requests',
    text: 'sends again what was answered with 429, with pauses',
    play: (stage) => refused(stage, 429),
  },
  {
    id: 'gateway_restart',
    text: 'outlives the gateway: nothing answers for a while, then its ends arrive',
    async play(stage) {
      await stage.start()
      let away: Promise<void> | null = null
      stage.gateway.fault = (request) => {
        if (!isEnd(request) || away !== null) return null
        away = stage.gateway
          .close()
          .then(() => stage.pause(AWAY_MS))
          .then(() => stage.gateway.open())
        away.catch(() => {})
        return 'break'
      }
      const lease = stage.gateway.task(stage.inputs.input)
      await stage.until(
        () => stage.gateway.accepted(lease) !== null,
        'the end of a task did not arrive at the next gateway',
        AWAY_MS + stage.patienceMs,
      )
      await stage.goesOn()
    },
  },
  {
    id: 'lost_answer',
    text: 'repeats an end whose answer was lost, and says the same',
    async play(stage) {
      await stage.start()
      let isLost = false
      stage.gateway.fault = (request) => {
        if (!isEnd(request) || isLost) return null
        isLost = true
        return 'deaf'
      }
      const lease = stage.gateway.task(stage.inputs.input)
      await stage.until(() => stage.gateway.endsOf(lease).length > 1, 'it did not repeat an end whose answer was lost')
      const said = new Set(stage.gateway.endsOf(lease).map(({ settlement }) => JSON.stringify({ ...settlement, lease: null })))
      if (said.size > 1) throw new Broken(`it ended one task in two ways: ${[...said].join(' and ').slice(0, 300)}`)
      await stage.goesOn()
    },
  },
  {
    id: 'lease_lost',
    text: 'forgets a task whose lease is dead (409, lease_lost), and goes on',
    async play(stage) {
      await stage.start()
      let lost = ''
      stage.gateway.judge = ({ lease }) => (lease === lost ? { lease, ok: false, code: 'lease_lost' } : { lease, ok: true })
      lost = stage.gateway.task(stage.inputs.input)
      await stage.until(() => stage.gateway.endsOf(lost).length > 0, 'it did not end a task that it was given')
      await stage.goesOn()
      await stage.pause(500)
      const ends = stage.gateway.endsOf(lost).length
      if (ends !== 1) throw new Broken(`it ended a task whose lease is dead ${ends} times`)
    },
  },
  {
    id: 'payload_too_large',
    text: 'fails a task whose result the gateway does not take (413)',
    async play(stage) {
      await stage.start()
      let large = ''
      stage.gateway.judge = ({ lease, status }) =>
        lease === large && status === 'completed' ? { lease, ok: false, code: 'payload_too_large' } : { lease, ok: true }
      large = stage.gateway.task(stage.inputs.input)
      await stage.until(() => stage.gateway.accepted(large)?.status === 'failed', 'it did not fail a task whose result was refused (413)')
      await stage.goesOn()
    },
  },
  {
    id: 'stops',
    text: 'ends within 10 s of SIGTERM when it is idle',
    async play(stage) {
      await stage.start()
      stage.agent.terminate()
      await stage.until(() => stage.agent.hasExited, `it still runs ${STOP_MS / 1_000} s after SIGTERM`, STOP_MS)
    },
  },
  {
    id: 'gives_back',
    text: 'gives its tasks back on SIGTERM (a failure with retryable: true), and ends within 10 s',
    async play(stage) {
      await stage.start()
      const lease = stage.slowTask()
      await stage.given(lease)
      // It may have to begin first.
      await stage.pause(500)
      stage.agent.terminate()
      await stage.until(() => stage.agent.hasExited, `it still runs ${STOP_MS / 1_000} s after SIGTERM, with a task`, STOP_MS)
      const end = stage.gateway.accepted(lease)
      if (end === null) throw new Broken('it ended on SIGTERM without a word about its task')
      if (end.status === 'failed' && end.error.retryable !== true)
        throw new Broken('it failed its task on SIGTERM for good: say retryable: true')
    },
  },
]
