/** A real Redis, a real gateway (a process, or within the test's) and agents that speak the protocol over raw HTTP. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { DEFAULT_WORK, type PipelineJob, type Project, type WorkPolicy } from '../../../spec/model.ts'
import {
  type Json,
  type LeasedTask,
  type LeaseReply,
  type RunView,
  SESSION_HEADER,
  type SubmitRequest,
  type TaskView,
} from '../../../spec/protocol.ts'
import { connectBroker } from '../../../engine/broker/bullmq.ts'
import type { Broker } from '../../../engine/broker/port.ts'
import { type Gateway, type GatewayOptions, startGateway } from '../../../engine/gateway/start.ts'
import { replicaToken } from '../../../engine/tokens.ts'
import { type RedisOptions, startRedis, type TestRedis } from '../../support/redis.ts'

export const PROJECT = 'demo'
const KEY = 'ab'.repeat(32)

/** Tests read answers as they come. */
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyJson = any
export interface Reply {
  readonly status: number
  readonly body: string
  readonly json: AnyJson
}
export interface RoleOptions {
  readonly concurrency?: number
  readonly delegates_to?: readonly string[]
  readonly replicas?: number
  /** Over DEFAULT_WORK. */
  readonly work?: Partial<WorkPolicy>
}

export type StartOptions = Partial<Pick<GatewayOptions, 'connect' | 'traces' | 'limits' | 'pace' | 'guarded'>>

export interface Harness {
  readonly redis: TestRedis
  readonly directory: string
  /** Of gateways within this process. */
  readonly log: AnyJson[]
  port(): number
  broker(): Broker
  configure(
    agents: { readonly [name: string]: RoleOptions },
    pipelines?: { readonly [name: string]: PipelineOptions },
    telemetry?: string,
  ): void
  /** Within this process. */
  start(options?: StartOptions): Promise<Gateway>
  /** As a process of its own. */
  spawn(...args: readonly string[]): ChildProcess
  healthy(ms?: number): Promise<void>
  control(method: string, path: string, body?: unknown): Promise<Reply>
  submit(body: SubmitRequest): Promise<string>
  ended(run: string, ms?: number): Promise<RunView>
  agent(name: string, replica?: number, session?: string | null): Client
  stop(): Promise<void>
}
export interface PipelineOptions {
  readonly inputs?: Project['pipelines'][string]['inputs']
  readonly jobs: { readonly [id: string]: Partial<PipelineJob> & { readonly agent: string } }
}

export async function harness(options: RedisOptions = {}): Promise<Harness> {
  const redis = await startRedis(options)
  const directory = mkdtempSync(join(tmpdir(), 't-gateway-'))
  const record = join(directory, 'record.json')
  const controlSocket = join(directory, 'control.sock')
  writeFileSync(join(directory, 'project-key'), KEY)
  writeFileSync(join(directory, 'broker-password'), redis.password)
  const gateways: Gateway[] = []
  const children = new Set<ChildProcess>()
  const clients: Client[] = []
  const brokers: Broker[] = []
  let port = 0

  const control = (method: string, path: string, body?: unknown): Promise<Reply> => http({ socketPath: controlSocket, method, path }, body)
  const self: Harness = {
    redis,
    directory,
    log: [],
    port: () => port,
    broker() {
      const [known] = brokers
      if (known !== undefined) return known
      const made = connectBroker({ project: PROJECT, host: redis.host, port: redis.port, password: redis.password })
      brokers.push(made)
      return made
    },
    configure(agents, pipelines = {}, telemetry) {
      const project = {
        name: PROJECT,
        agents: Object.fromEntries(
          Object.entries(agents).map(([name, role]) => [
            name,
            { name, role: 'worker', concurrency: 1, delegates_to: [], ...role, work: { ...DEFAULT_WORK, ...role.work } },
          ]),
        ),
        services: {},
        secrets: {},
        volumes: {},
        pipelines: Object.fromEntries(
          Object.entries(pipelines).map(([name, { inputs = {}, jobs }]) => [
            name,
            {
              name,
              inputs,
              jobs: Object.fromEntries(
                Object.entries(jobs).map(([id, job]) => [id, { id, needs: [], type: 'task', with: {}, foreach: null, ...job }]),
              ),
            },
          ]),
        ),
        telemetry: telemetry === undefined ? null : { endpoint: telemetry },
      }
      writeFileSync(
        record,
        JSON.stringify({
          version: 1,
          written_by: 'test',
          revision: 1,
          project,
          scale: {},
          stopped: [],
          images: { engine: '', agent: '' },
          subnets: {},
        }),
      )
    },
    async start(more = {}) {
      const gateway = await startGateway({
        connect: (project, password) => connectBroker({ project, host: redis.host, port: redis.port, password }),
        record,
        secrets: directory,
        host: '127.0.0.1',
        port,
        controlSocket,
        stateDir: join(directory, 'state'),
        log: (message, fields) => void self.log.push({ message, ...fields }),
        ...more,
      })
      gateways.push(gateway)
      port = gateway.port
      return gateway
    },
    spawn(...args) {
      const env = {
        ...process.env,
        AGENTCTL_BROKER: `${redis.host}:${redis.port}`,
        AGENTCTL_RECORD: record,
        AGENTCTL_SECRETS: directory,
        AGENTCTL_CONTROL: controlSocket,
        AGENTCTL_STATE: join(directory, 'state'),
        AGENTCTL_HOST: '127.0.0.1',
        AGENTCTL_PORT: String(port),
      }
      const child = spawn(process.execPath, [resolve('engine/gateway/main.ts'), ...args], {
        env,
        stdio: process.env['GATEWAY_LOG'] === '1' ? 'inherit' : 'ignore',
      })
      children.add(child)
      child.once('exit', () => children.delete(child))
      return child
    },
    async healthy(ms = 20_000) {
      const until = Date.now() + ms
      while ((await control('GET', '/v1/health').catch(() => null))?.status !== 200) {
        if (Date.now() > until) throw new Error(`the gateway does not answer within ${ms} ms`)
        await sleep(20)
      }
    },
    control,
    async submit(body) {
      const reply = await control('POST', '/v1/runs', body)
      if (reply.status !== 200) throw new Error(reply.body)
      return reply.json.run
    },
    async ended(run, ms = 30_000) {
      const until = Date.now() + ms
      for (;;) {
        const reply = await control('GET', `/v1/runs/${run}?wait_ms=1000`).catch(() => null)
        if (reply?.status === 200 && !['running', 'queued'].includes(reply.json.status)) return reply.json
        if (Date.now() > until) throw new Error(`run ${run} has not ended within ${ms} ms: ${reply?.body}`)
        if (reply === null || reply.status !== 200) await sleep(50)
      }
    },
    agent(name, replica = 1, session = randomBytes(8).toString('hex')) {
      const client = new Client(() => port, replicaToken(KEY, PROJECT, { agent: name, replica }), session)
      clients.push(client)
      return client
    },
    async stop() {
      for (const client of clients) client.die()
      await Promise.all(gateways.map((gateway) => gateway.close()))
      await Promise.all(
        [...children].map((child) => {
          const gone = new Promise((resolve) => child.once('exit', resolve))
          child.kill('SIGKILL')
          return gone
        }),
      )
      await Promise.all(brokers.map((broker) => broker.close()))
      await redis.stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
  port = await freePort()
  return self
}

export type Work = (task: LeasedTask, context: { readonly client: Client; readonly signal: AbortSignal }) => Promise<Json>

/** An agent: the protocol by hand, or `run` as a runtime would. */
export class Client {
  readonly #port: () => number
  readonly #headers: Record<string, string>
  readonly #agent = new Agent({ keepAlive: true, keepAliveMsecs: 60_000 })
  /** Executions begun, by task. */
  readonly started: Map<string, number> = new Map()
  readonly held: Map<string, AbortController> = new Map()
  readonly cancelled: string[] = []
  dead = false

  constructor(port: () => number, token: string, session: string | null) {
    this.#port = port
    this.#headers = {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      ...(session === null ? {} : { [SESSION_HEADER]: session }),
    }
  }

  call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Reply> {
    return http(
      { host: '127.0.0.1', port: this.#port(), method, path, agent: this.#agent, headers: { ...this.#headers, ...headers } },
      body,
    )
  }
  post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Reply> {
    return this.call('POST', path, body, headers)
  }
  async lease(want: number, wait_ms = 2_000, more: object = {}): Promise<LeaseReply> {
    const reply = await this.post('/v1/lease', { want, wait_ms, ...more })
    if (reply.status !== 200) throw new Error(`${reply.status} ${reply.body}`)
    return reply.json
  }

  /** All sockets close, nothing more is said: as by SIGKILL. */
  die(): void {
    this.dead = true
    for (const abort of this.held.values()) abort.abort()
    this.#agent.destroy()
  }

  /** Leases, works and settles until it dies; a gateway that is away is waited for. */
  run(slots: number, work: Work): void {
    const done: { lease: string }[] = []
    let sending = 0
    let wake = (): void => {}
    const settle = (entry: { lease: string; [key: string]: unknown }): void => {
      done.push(entry)
      wake()
    }
    const start = (task: LeasedTask): void => {
      if (this.held.has(task.lease)) return
      const abort = new AbortController()
      this.held.set(task.lease, abort)
      this.started.set(task.id, (this.started.get(task.id) ?? 0) + 1)
      void work(task, { client: this, signal: abort.signal })
        .then(
          (result) => ({ lease: task.lease, status: 'completed', result }),
          (error: Error & { code?: string; retryable?: boolean }) => ({
            lease: task.lease,
            status: 'failed',
            error: { code: error.code ?? 'error', message: error.message, retryable: error.retryable === true },
          }),
        )
        .then((entry) => {
          this.held.delete(task.lease)
          if (!this.dead) settle(entry)
        })
    }
    const exchange = async (want: number, wait_ms: number): Promise<void> => {
      const batch = done.splice(0)
      try {
        const reply = await this.lease(want, batch.length > 0 ? 0 : wait_ms, { beat: [...this.held.keys()], done: batch })
        const missing = batch.filter(
          (entry) => !reply.settled.some((it) => it.lease === entry.lease && (it.ok || it.code === 'lease_lost')),
        )
        done.unshift(...missing)
        for (const lease of reply.cancel) {
          this.cancelled.push(lease)
          this.held.get(lease)?.abort()
        }
        for (const task of reply.tasks) start(task)
      } catch {
        done.unshift(...batch)
        if (!this.dead) await sleep(30)
      }
    }
    const loop = async (): Promise<void> => {
      while (!this.dead) await exchange(slots, 500)
    }
    const settler = async (): Promise<void> => {
      while (!this.dead) {
        if (done.length === 0)
          await new Promise<void>((resolve) => {
            wake = resolve
            setTimeout(resolve, 200).unref()
          })
        if (done.length > 0 && sending < 2) {
          sending += 1
          await exchange(0, 0).finally(() => {
            sending -= 1
          })
        }
      }
    }
    void loop()
    void settler()
  }

  /** As `ctx.delegate`: over any restart of the gateway. */
  async delegate(task: LeasedTask, key: string, agent: string, input: Json, signal: AbortSignal): Promise<Json> {
    const ask = async (send: () => Promise<Reply>): Promise<Reply> => {
      for (;;) {
        if (this.dead || signal.aborted) throw Object.assign(new Error('stopped'), { code: 'stopped' })
        const reply = await send().catch(() => null)
        if (reply !== null && reply.status < 500) return reply
        await sleep(30)
      }
    }
    const made = await ask(() => this.post('/v1/delegate', { lease: task.lease, key, agent, input }))
    if (made.status !== 200) throw Object.assign(new Error(made.body), { code: made.json?.error?.code })
    for (;;) {
      const seen = await ask(() => this.call('GET', `/v1/tasks/${made.json.task}?wait_ms=500`))
      if (seen.status !== 200) throw Object.assign(new Error(seen.body), { code: seen.json?.error?.code })
      const view = seen.json as TaskView
      if (view.status === 'completed') return view.result
      if (view.status !== 'queued' && view.status !== 'running')
        throw Object.assign(new Error(`child ${view.status}`), { code: view.error?.code ?? view.status })
    }
  }
}

export function http(options: object, body?: unknown): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request({ timeout: 40_000, ...options }, (answer) => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk) => {
        text += chunk
      })
      answer.on('error', reject)
      answer.on('end', () => {
        let json: unknown = null
        try {
          json = JSON.parse(text)
        } catch {
          // Not JSON: `body` has it.
        }
        resolve({ status: answer.statusCode ?? 0, body: text, json })
      })
    })
    sent.on('error', reject)
    sent.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body))
  })
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address() as { port: number }
      probe.close(() => resolve(address.port))
    })
  })
}

export async function until<T>(what: string, ms: number, check: () => T | Promise<T>): Promise<NonNullable<T>> {
  const end = Date.now() + ms
  for (;;) {
    const value = await check()
    if (value !== null && value !== undefined && value !== false) return value as NonNullable<T>
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`)
    await sleep(20)
  }
}
