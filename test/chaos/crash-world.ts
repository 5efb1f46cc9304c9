/** One trial: a gateway as a process behind a proxy that cuts its way to Redis and kills it there, agents and submitters that go on. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { queuePrefix, TRUSTED_SECRETS } from '../../engine/names.ts'
import { replicaToken } from '../../engine/tokens.ts'
import type { Project } from '../../spec/model.ts'
import { type Json, type LeaseReply, type RunView, type SubmitRequest, TERMINAL } from '../../spec/protocol.ts'
import { Client, http, type Reply } from '../integration/gateway/harness.ts'
import { record } from '../support/project.ts'
import type { TestRedis } from '../support/redis.ts'
import { type BrokerState, brokerState, STATE_SCRIPT } from './broker-state.ts'
import type { Execution, LedgerRun, Outcome, Submitted } from './history.ts'
import { ledgerRun } from './ledger.ts'
import { type Cut, redisProxy, type RedisProxy } from './redis-proxy.ts'

const KEY = 'ab'.repeat(32)
/** Longest life of a trial, on a machine that has other things to do. */
export const TRIAL_MS = 60_000

export interface CrashWorld extends AsyncDisposable {
  readonly proxy: RedisProxy
  readonly executions: Execution[]
  readonly submitted: readonly Submitted[]
  /** The gateway before the cut and after it; resolves once each is dead or, the last one, listening. */
  start(cuts: readonly Cut[]): void
  /** Cuts that were reached. */
  readonly reached: readonly Cut[]
  agent(name: string, replica: number, slots: number, work: AgentWork): void
  /** Sent again with the same id until it is answered. */
  submit(request: SubmitRequest, ends: Submitted['ends'], tasks: number | null): Promise<string>
  cancel(run: string): Promise<void>
  ended(run: string): Promise<LedgerRun>
  /** Executions that have begun. */
  begun(run: string): number
  state(): Promise<BrokerState>
}
export type AgentWork = (input: AnyInput, context: WorkContext) => Promise<Json>
/** Tests read inputs as they are. */
// oxlint-disable-next-line typescript/no-explicit-any
type AnyInput = any
export interface WorkContext {
  readonly attempt: number
  readonly execution: string
  readonly signal: AbortSignal
  delegate(key: string, agent: string, input: { readonly [name: string]: Json }): Promise<Json>
}

export async function crashWorld(redis: TestRedis, project: Project, gateway: string): Promise<CrashWorld> {
  const folder = mkdtempSync(join(tmpdir(), 't-crash-'))
  const controlSocket = join(folder, 'control.sock')
  for (const name of ['secrets', 'state']) mkdirSync(join(folder, name))
  writeFileSync(join(folder, 'secrets', TRUSTED_SECRETS.projectKey), KEY)
  writeFileSync(join(folder, 'secrets', TRUSTED_SECRETS.brokerPassword), redis.password)
  writeFileSync(join(folder, 'record.json'), JSON.stringify(record(project)))
  const proxy = await redisProxy(redis)
  const port = await freePort()
  const executions: Execution[] = []
  const submitted = new Map<string, Submitted>()
  const reached: Cut[] = []
  const clients: Client[] = []
  const until = Date.now() + TRIAL_MS
  let child: ChildProcess | null = null
  let output = ''
  let isOver = false

  const spawnGateway = (): ChildProcess => {
    const env = {
      PATH: process.env['PATH'],
      AGENTCTL_BROKER: `127.0.0.1:${proxy.port}`,
      AGENTCTL_RECORD: join(folder, 'record.json'),
      AGENTCTL_SECRETS: join(folder, 'secrets'),
      AGENTCTL_STATE: join(folder, 'state'),
      AGENTCTL_CONTROL: controlSocket,
      AGENTCTL_HOST: '127.0.0.1',
      AGENTCTL_PORT: String(port),
    }
    const started = spawn(process.execPath, [gateway, '--child'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [started.stdout, started.stderr]) stream.on('data', (chunk) => (output += String(chunk)))
    return started
  }
  const start = ([cut, ...later]: readonly Cut[]): void => {
    proxy.open(cut ?? null, () => {
      if (cut !== undefined) reached.push(cut)
      const dying = child
      dying?.once('exit', () => void proxy.shut().then(() => !isOver && start(later)))
      dying?.kill('SIGKILL')
    })
    child = spawnGateway()
  }
  /** Until the gateway (whichever of them) answers with what is no passing trouble. */
  const ask = async (method: string, path: string, body?: unknown): Promise<Reply> => {
    for (;;) {
      const reply = await http({ socketPath: controlSocket, method, path, timeout: 5_000 }, body).catch(() => null)
      if (reply !== null && reply.status < 500) return reply
      if (isOver || Date.now() > until) throw new Error(`${method} ${path}: no answer in time, last ${reply?.body}\n${output}`)
      await sleep(20)
    }
  }

  return {
    proxy,
    executions,
    reached,
    start,
    get submitted() {
      return [...submitted.values()]
    },
    agent(name, replica, slots, work) {
      const client = new RecordingClient(
        () => port,
        replicaToken(KEY, project.name, { agent: name, replica }),
        randomBytes(8).toString('hex'),
        executions,
      )
      clients.push(client)
      client.run(slots, async (task, { signal }) => {
        const input = (task.input ?? {}) as { parent?: string; child_key?: string; key?: string }
        const execution = `${task.id}#${task.attempt}@${name}.${replica}`
        const begun: Execution = {
          task: task.id,
          run: task.run,
          attempt: task.attempt,
          execution,
          replica: `${name}.${replica}`,
          parent: input.parent ?? null,
          child_key: input.child_key ?? null,
          key: input.key ?? null,
          begin: Date.now(),
          end: null,
          outcome: null,
          acked: null,
        }
        client.begin(task.lease, begun)
        const delegate: WorkContext['delegate'] = (key, agent, more) =>
          client.delegate(task, key, agent, { ...more, parent: task.id, child_key: key }, signal)
        try {
          const value = await work(task.input as AnyInput, { attempt: task.attempt, execution, signal, delegate })
          const result = { value, execution }
          client.end(task.lease, { status: 'completed', result })
          return result
        } catch (error) {
          const { code = 'error', retryable = false } = error as { code?: string; retryable?: boolean }
          client.end(task.lease, { status: 'failed', code, retryable })
          throw error
        }
      })
    },
    async submit(request, ends, tasks) {
      const run = request.id ?? ''
      const head: Submitted = { run, acked: false, tasks, ends, cancel: null }
      submitted.set(run, head)
      const reply = await ask('POST', '/v1/runs', request)
      if (reply.status !== 200) throw new Error(`submit ${run}: ${reply.body}`)
      submitted.set(run, { ...head, acked: true })
      return run
    },
    async cancel(run) {
      const head = submitted.get(run) as Submitted
      const sent = Date.now()
      submitted.set(run, { ...head, cancel: { sent, acked: null } })
      const reply = await ask('POST', `/v1/runs/${run}/cancel`, {})
      if (reply.status !== 200) throw new Error(`cancel ${run}: ${reply.body}`)
      submitted.set(run, { ...head, cancel: { sent, acked: Date.now() } })
    },
    async ended(run) {
      for (;;) {
        const reply = await ask('GET', `/v1/runs/${run}?wait_ms=1000`)
        const view = reply.json as RunView
        if (reply.status === 200 && TERMINAL.has(view.status)) return ledgerRun([view])
        if (Date.now() > until) throw new Error(`${run} has not ended: ${reply.body}\n${output}`)
        if (reply.status !== 200) await sleep(50)
      }
    },
    begun: (run) => executions.filter((it) => it.run === run).length,
    async state() {
      const client = new Redis({ host: redis.host, port: redis.port, password: redis.password })
      try {
        const prefix = queuePrefix(project.name)
        return brokerState(String(await client.eval(STATE_SCRIPT, 0, prefix)), prefix)
      } finally {
        client.disconnect()
      }
    },
    async [Symbol.asyncDispose]() {
      isOver = true
      for (const client of clients) client.die()
      await new Promise<void>((resolve) => {
        if (child === null || child.exitCode !== null || child.signalCode !== null) resolve()
        else child.once('exit', () => resolve()).kill('SIGKILL')
      })
      await proxy.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Notes what it did, what it reported and what it was told about that. */
class RecordingClient extends Client {
  readonly #executions: Execution[]
  readonly #byLease = new Map<string, number>()

  constructor(port: () => number, token: string, session: string, executions: Execution[]) {
    super(port, token, session)
    this.#executions = executions
  }

  begin(lease: string, execution: Execution): void {
    this.#byLease.set(lease, this.#executions.push(execution) - 1)
  }
  end(lease: string, outcome: Outcome): void {
    this.#change(lease, { end: Date.now(), outcome })
  }
  #change(lease: string, change: Partial<Execution>): void {
    const at = this.#byLease.get(lease)
    const now = at === undefined ? undefined : this.#executions[at]
    if (at !== undefined && now !== undefined) this.#executions[at] = { ...now, ...change }
  }

  override async lease(want: number, wait_ms = 2_000, more: object = {}): Promise<LeaseReply> {
    const reply = await super.lease(want, wait_ms, more)
    for (const { lease, ok } of reply.settled) this.#change(lease, { acked: ok })
    return reply
  }
}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number }
      probe.close(() => resolve(port))
    })
  })
