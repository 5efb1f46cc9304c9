/** One chaos run: a real project on a real engine, work, faults, and then the verdict over what every witness says. */
import { setTimeout as sleep } from 'node:timers/promises'
import { LABEL, queuePrefix, trustedName } from '../../engine/names.ts'
import { readStore } from '../../engine/secrets/store.ts'
import { newRunId } from '../../engine/ulid.ts'
import { prepareScale } from '../../engine/verbs.ts'
import { OtlpReceiver } from '../support/otlp.ts'
import { type Stack, stack } from '../support/stack.ts'
import { type BrokerState, brokerState, STATE_SCRIPT } from './broker-state.ts'
import { check, type Verdict } from './checker.ts'
import type { Fault, History, LedgerRun, LedgerTask, Submitted } from './history.ts'
import { Ledger } from './ledger.ts'
import { nemesis } from './nemesis.ts'
import { agentsFile, HANDLERS, PER_KEY, type Shape } from './project.ts'
import { random } from './random.ts'
import { crashesOf, executionsOf } from './records.ts'
import { type Work, workload } from './workload.ts'

export interface ChaosOptions {
  readonly seed: number
  readonly tasks: number
  /** How long work is submitted and things are broken; then all is healed and drained. */
  readonly minutes: number
  readonly shape: Shape
  readonly agent_ms: number
  readonly core_ms: number
  readonly controller_ms: number
  /** strict: nothing may be lost. normal: what is lost must be told. */
  readonly durability: 'strict' | 'normal'
  /** Restarts the engine; null: it is not ours to restart. */
  readonly restartEngine: (() => Promise<void>) | null
  readonly log: (line: string) => void
}
export interface ChaosResult {
  readonly options: ChaosOptions
  readonly history: History
  readonly work: readonly Work[]
  readonly verdicts: readonly Verdict[]
  readonly heal_ms: number
}

const HEAL_MS = 60_000
const DRAIN_MS = 180_000
/** Runs that are open at once: enough that every replica has work, few enough that a cancel meets running tasks. */
const OPEN_RUNS = 40

export async function chaos(options: ChaosOptions): Promise<ChaosResult> {
  const { seed, log } = options
  const all = random(seed)
  const work = workload(all.fork('work'), options.tasks)
  await using receiver = await OtlpReceiver.start()
  const file = (version: number): string => agentsFile(options.shape, version, receiver.hostUrl, options.durability)
  await using project = await stack('t-chaos', { 'agents.yaml': file(1), ...HANDLERS })
  const { control, runtime, name } = project
  const redis = redisCli(project)
  const ledger = new Ledger(control)
  const submitted = new Map<string, Submitted>()
  const stop = new AbortController()
  const length = options.minutes * 60_000

  const breaking = nemesis({
    struck: { runtime, project: name, random: all.fork('faults'), signal: stop.signal, redis },
    agent_ms: options.agent_ms,
    core_ms: options.core_ms,
    controller_ms: options.controller_ms,
    verbs: [
      { kind: 'up with a changed agent', at_ms: length * 0.3, act: async () => void (await project.up({ 'agents.yaml': file(2) })) },
      ...(options.restartEngine === null
        ? []
        : [0.15, 0.5, 0.85].map((share) => ({
            kind: 'engine restarted',
            at_ms: length * share,
            act: options.restartEngine as () => Promise<void>,
          }))),
      {
        kind: 'scale to zero and back',
        at_ms: length * 0.65,
        act: async () => {
          await scale(project, { work: 0 })
          await sleep(3_000)
          await scale(project, { work: options.shape.work })
        },
      },
    ],
    failed: (verb, error) => log(`${verb}: ${String(error).slice(0, 500)}`),
    told: ({ kind, target, at, until, missed }) =>
      log(`${new Date(at).toISOString().slice(11, 23)} ${kind} → ${target} (${(until ?? at) - at} ms${missed ? ', missed' : ''})`),
  })
  const began = Date.now()
  const late = await submitAll(options, project, work, submitted, ledger, began, length)
  while (Date.now() - began < length) await sleep(200)
  stop.abort()
  const faults = await breaking
  const healing = Date.now()
  log(`healing; ${ledger.ended.size} of ${submitted.size} runs have ended`)
  await heal(project, file(2), log)
  await ledger.drain(new Set(submitted.keys()), DRAIN_MS)
  const heal_ms = Date.now() - healing
  const history = await gather(project, redis, ledger, submitted, faults, receiver, options)
  return { options, work, history, verdicts: withLate(check(history), late), heal_ms }
}

/** Work that could not even be submitted has not ended either. */
const withLate = (verdicts: readonly Verdict[], late: string | null): readonly Verdict[] =>
  verdicts.map((it) => (it.invariant === 'I1' && late !== null ? { ...it, violations: [late, ...it.violations] } : it))

const scale = async (project: Stack, to: { readonly [agent: string]: number }): Promise<void> => {
  const outcome = await (await prepareScale(project.ctx, project.name, to)).apply()
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.failures))
}

/** The password is read each time: an engine that was restarted has lost the memory in which it stood, and the controller made another. */
const redisCli =
  (project: Stack) =>
  async (...command: readonly string[]): Promise<string> => {
    const store = await readStore(project.runtime, project.name, AbortSignal.timeout(20_000))
    if (store === null) throw new Error('no secrets')
    const { exit_code, stdout, stderr } = await project.runtime.exec(
      trustedName(project.name, 'broker'),
      ['redis-cli', '--no-auth-warning', '--raw', ...command],
      { env: [`REDISCLI_AUTH=${store.broker_password}`], timeout_ms: 30_000 },
    )
    const text = stdout.toString('utf8')
    if (exit_code !== 0 || /^(ERR|OOM|LOADING|NOAUTH|WRONGPASS|MISCONF)/.test(text))
      throw new Error(`redis-cli ${command[0]}: ${text || stderr.toString('utf8')}`)
    return text
  }

/** Spread over the time, each with its id before it is sent, so that it is sent again until it is answered. null: all are; else why not. */
async function submitAll(
  options: ChaosOptions,
  project: Stack,
  work: readonly Work[],
  submitted: Map<string, Submitted>,
  ledger: Ledger,
  began: number,
  length: number,
): Promise<string | null> {
  const { control } = project
  const under = new Set<Promise<void>>()
  const insist = async (act: () => Promise<unknown>): Promise<void> => {
    for (let tries = 0; ; tries++) {
      try {
        await act()
        return
      } catch (error) {
        if (tries === 100) throw error
        await sleep(200)
      }
    }
  }
  const send = async (one: Work): Promise<void> => {
    const id = newRunId()
    const head: Submitted = { run: id, acked: false, tasks: one.roots, ends: one.ends, cancel: null }
    submitted.set(id, head)
    await Promise.all(Array.from({ length: one.copies }, () => insist(() => control.submit({ ...one.request, id }))))
    submitted.set(id, { ...head, acked: true })
    if (one.cancel_ms === null) return
    await sleep(one.cancel_ms)
    const sent = Date.now()
    submitted.set(id, { ...head, acked: true, cancel: { sent, acked: null } })
    await insist(() => control.cancel(id))
    submitted.set(id, { ...head, acked: true, cancel: { sent, acked: Date.now() } })
  }
  let looked = 0
  for (const [index, one] of work.entries()) {
    // The last tenth of the time is for what is still under way.
    const due = began + (0.9 * length * index) / work.length
    while (Date.now() < due || submitted.size - ledger.ended.size >= OPEN_RUNS) {
      if (Date.now() - looked > 1_000) {
        looked = Date.now()
        await ledger.look(new Set(submitted.keys())).catch(() => {})
      } else await sleep(50)
      if (Date.now() > began + 2 * length + 60_000)
        return `in ${2 * length + 60_000} ms ${submitted.size} of ${work.length} runs were submitted, and ${ledger.ended.size} ended\n${await told(project)}`
    }
    const sending = send(one).finally(() => under.delete(sending))
    under.add(sending)
  }
  await Promise.all(under)
  return null
}

/** What the gateway says, where a run of the suite does not get on. */
async function told({ runtime, name, control }: Stack): Promise<string> {
  const lines: string[] = [`replicas: ${JSON.stringify(await control.replicas().catch(String))}`]
  for (const part of ['gateway', 'controller'] as const) {
    try {
      const logs = runtime.logs(trustedName(name, part), { follow: false, tail: 25, timestamps: false }, AbortSignal.timeout(10_000))
      for await (const { data } of logs) lines.push(data.toString('utf8').trimEnd())
    } catch (error) {
      lines.push(`${part}: ${String(error)}`)
    }
  }
  return lines.join('\n')
}

/** The last `up` makes good what failed verbs left; from then on everything must become whole by itself. */
async function heal(project: Stack, file: string, log: (line: string) => void): Promise<void> {
  const until = Date.now() + HEAL_MS
  for (;;) {
    try {
      await project.up({ 'agents.yaml': file })
      return
    } catch (error) {
      log(`up: ${String(error).slice(0, 300)}`)
      if (Date.now() > until) throw error
      await sleep(1_000)
    }
  }
}

async function gather(
  project: Stack,
  redis: (...command: readonly string[]) => Promise<string>,
  ledger: Ledger,
  submitted: ReadonlyMap<string, Submitted>,
  faults: readonly Fault[],
  receiver: OtlpReceiver,
  { shape, durability, restartEngine }: ChaosOptions,
): Promise<History> {
  const { runtime, name } = project
  const runs = await ledger.final(new Set(submitted.keys()))
  const prefix = queuePrefix(name)
  const read = async (): Promise<BrokerState> => brokerState(await redis('EVAL', STATE_SCRIPT, '0', prefix), prefix)
  let state = await read()
  // Children of cancelled runs are let go after their grace.
  for (let tries = 0; tries < 60 && state.queues.some((it) => it.waiting + it.active + it.delayed + it.prioritized > 0); tries++) {
    await sleep(500)
    state = await read()
  }
  const worker = (await runtime.containers(name)).find((it) => it.labels[LABEL.agent] === 'work' && it.status === 'running')
  const { stdout } = await runtime.exec(worker?.name ?? '', ['sh', '-c', 'cat /records/*.log'], { timeout_ms: 60_000 })
  const text = stdout.toString('utf8')
  return {
    submitted: [...submitted.values()],
    executions: executionsOf(text),
    runs,
    ...state,
    tasks: [...state.tasks, ...archived(runs, state)],
    faults: [...faults, ...crashesOf(text)],
    mayLose: durability === 'normal',
    perKey: PER_KEY,
    // From the network namespace of an engine of our own the receiver cannot be reached.
    roots: restartEngine === null ? rootsOf(receiver) : null,
    containers: await orphans(project, shape),
  }
}

/** Ended runs beyond what Redis keeps: their tasks are in the archive, and the control API shows them. */
function archived(runs: readonly LedgerRun[], state: BrokerState): readonly LedgerTask[] {
  const there = new Set(state.tasks.map((it) => it.run))
  return runs.flatMap((run) => (there.has(run.run) || run.status === 'cancelled' ? [] : run.roots))
}

function rootsOf(receiver: OtlpReceiver): { readonly [run: string]: number } {
  const roots = new Map<string, Set<string>>()
  for (const span of receiver.spans()) {
    const of = roots.get(span.trace_id) ?? new Set()
    if (span.parent === '') of.add(span.span_id)
    roots.set(span.trace_id, of)
  }
  return Object.fromEntries([...roots].map(([trace, spans]) => [trace, spans.size]))
}

/** The controller is given time for its last repair. */
async function orphans({ runtime, name }: Stack, shape: Shape): Promise<readonly string[]> {
  const wanted = [
    ...(['secrets', 'broker', 'gateway', 'egress', 'controller'] as const).map((part) => trustedName(name, part)),
    ...Object.entries(shape).flatMap(([agent, replicas]) =>
      Array.from({ length: replicas as number }, (_, index) => `${name}-${agent}-${index + 1}`),
    ),
  ]
  for (let tries = 0; ; tries++) {
    const there = await runtime.containers(name)
    const wrong = [
      ...there.filter((it) => !wanted.includes(it.name)).map((it) => `${it.name} should not be there`),
      ...wanted
        .filter((it) => !there.some((one) => one.name === it && one.status === 'running'))
        .map((it) => `${it} does not run: ${there.find((one) => one.name === it)?.status ?? 'missing'}`),
    ]
    if (wrong.length === 0 || tries === 60) return wrong
    await sleep(500)
  }
}
