/** A small agent that speaks the protocol, except for what BREAK names: one defect per rule of the conformance kit. */
import { readFileSync } from 'node:fs'

const broken = process.env['BREAK'] ?? ''
const gateway = process.env['AGENTCTL_GATEWAY'] ?? ''
const token = readFileSync(process.env['AGENTCTL_TOKEN_FILE'] ?? '', 'utf8').trim()
const slots = Number(process.env['AGENTCTL_CONCURRENCY'])
const KNOWN = new Set(['tasks', 'settled', 'cancel'])

interface Leased {
  readonly lease: string
  readonly input: { readonly text?: string; readonly slow?: boolean } | null
}
interface Reply {
  readonly status: number
  readonly body: { readonly tasks?: readonly Leased[]; readonly cancel?: readonly string[] }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const stops = new Map<string, () => void>()
let stopping = false

async function once(path: string, body: object): Promise<Reply> {
  const isAnonymous = broken === 'token' && path === '/v1/complete'
  const response = await fetch(`${gateway}${path}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'agentctl-session': 'broken-agent',
      ...(isAnonymous ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(body),
  })
  return { status: response.status, body: (await response.json()) as Reply['body'] }
}

async function send(path: string, body: object): Promise<Reply> {
  for (;;) {
    try {
      const reply = await once(path, body)
      if (broken === 'unavailable' && reply.status === 503) return reply
      if (broken === 'too_many_requests' && reply.status === 429) return reply
      if (reply.status < 500 && reply.status !== 429) return reply
    } catch (error) {
      const isRefused = String((error as Error & { readonly cause?: unknown }).cause).includes('ECONNREFUSED')
      if (broken === 'gateway_restart' && isRefused) process.exit(1)
      if (broken === 'lost_answer' && path === '/v1/complete') return { status: 200, body: {} }
    }
    await pause(100)
  }
}

function cancelled(reply: Reply): void {
  if (broken !== 'cancel') for (const lease of reply.body.cancel ?? []) stops.get(lease)?.()
}

async function work({ lease, input }: Leased): Promise<void> {
  const stopped = new Promise<void>((resolve) => stops.set(lease, resolve))
  const beating = setInterval(() => {
    if (broken !== 'beats') send('/v1/lease', { want: 0, beat: [lease] }).then(cancelled, () => {})
  }, 1_000)
  if (broken === 'well_formed') await send('/v1/progress', { lease, percent: 'half' })
  if (input?.slow === true) await stopped
  clearInterval(beating)
  stops.delete(lease)
  const text = input?.text
  if (text === undefined && broken === 'fails_in_words') return
  const isRefused = text === undefined || (broken === 'large_input' && text.length > 10_000)
  const fail = (code: string): Promise<Reply> =>
    send('/v1/fail', { lease, error: { code, message: 'it was not to be', retryable: code === 'agent_stopped' } })
  if (stopping) return void (broken === 'gives_back' ? null : await fail('agent_stopped'))
  if (isRefused) return void (await fail('bad_input'))
  const cut = broken === 'unicode' ? Buffer.from(text).subarray(0, 4).toString() : text.slice(0, 100)
  const ended = await send('/v1/complete', { lease, result: { text: cut } })
  if (broken === 'settles_once') await send('/v1/complete', { lease, result: { text: cut } })
  if (ended.status === 413 && broken !== 'payload_too_large') await fail('payload_too_large')
  if (ended.status === 409 && broken === 'lease_lost') await send('/v1/complete', { lease, result: { text: cut } })
}

process.on('SIGTERM', () => {
  if (broken === 'stops') return
  stopping = true
  for (const stop of stops.values()) stop()
  setTimeout(() => process.exit(0), 500)
})

if (broken === 'connects') await pause(3_600_000)
while (!stopping) {
  const wait = broken === 'long_poll' ? 0 : 10_000
  const reply = await send('/v1/lease', { want: broken === 'slots' ? 10 : slots, wait_ms: wait })
  const unknown = Object.keys(reply.body).find((key) => !KNOWN.has(key) && key !== 'error')
  if (broken === 'unknown_fields' && unknown !== undefined) throw new Error(`unknown field ${unknown}`)
  const tasks = reply.body.tasks ?? []
  if (broken === 'empty_answer' && tasks.length === 0) await pause(3_600_000)
  cancelled(reply)
  await Promise.all((broken === 'batch' ? tasks.slice(0, 1) : tasks).map(work))
}
await pause(3_600_000)
