/** A real broker, the real gateway and real runtimes, as processes of this machine: what containers add is shown elsewhere. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TRUSTED_SECRETS } from '../../../engine/names.ts'
import { replicaToken } from '../../../engine/tokens.ts'
import { type Agent, gatewaysOf, type Project } from '../../../spec/model.ts'
import type { Json, JobView, ReplicaView, RunEvent, RunView, SubmitRequest } from '../../../spec/protocol.ts'
import { project, record } from '../../support/project.ts'
import { startRedis, type TestRedis } from '../../support/redis.ts'
import { type AgentOptions, AgentProcess, eventually } from '../../unit/agents/agent-process.ts'

const GATEWAY = join(import.meta.dirname, '../../../engine/gateway/main.ts')
const KEY = 'ab'.repeat(32)

export interface World extends AsyncDisposable {
  readonly port: number
  readonly folder: string
  readonly redis: TestRedis
  token(agent: string, replica?: number): string
  start(agent: string, options?: Partial<AgentOptions>): AgentProcess
  /** A module of this source in a folder of its own, as the value of AGENTCTL_HANDLER. */
  module(source: string): string
  submit(agent: string, ...tasks: readonly Json[]): Promise<string>
  run(request: SubmitRequest): Promise<string>
  ended(run: string, timeoutMs?: number): Promise<RunView>
  /** Submits one task and waits for its end. */
  task(agent: string, input: Json): Promise<JobView>
  cancel(run: string): Promise<void>
  events(run: string): Promise<readonly RunEvent[]>
  replicas(): Promise<readonly ReplicaView[]>
  /** Default: the first. */
  killGateway(gateway?: number): Promise<void>
  startGateway(gateway?: number): Promise<void>
  /** Any route of the control API of the first gateway, or of another. */
  control(method: string, path: string, body?: unknown, gateway?: number): Promise<{ readonly status: number; readonly text: string }>
  ports(): readonly number[]
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = net.createServer().once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

function control(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { socketPath, method, path, headers: { 'content-type': 'application/json' }, timeout: 60_000 },
      (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      },
    )
    request.on('error', reject).on('timeout', () => request.destroy(new Error(`no answer: ${method} ${path}`)))
    request.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

export async function world(agents: readonly Agent[], more: Partial<Project> = {}): Promise<World> {
  const folder = mkdtempSync(join(tmpdir(), 'agentctl-world-'))
  const redis = await startRedis()
  const secrets = join(folder, 'secrets')
  const state = join(folder, 'state')
  mkdirSync(secrets)
  mkdirSync(state)
  writeFileSync(join(secrets, TRUSTED_SECRETS.projectKey), KEY)
  writeFileSync(join(secrets, TRUSTED_SECRETS.brokerPassword), redis.password)
  const all: Project = { ...project({ agents }), ...more }
  const { subnets } = record(all)
  // All are on this machine: its loopback is the control network.
  writeFileSync(join(folder, 'record.json'), JSON.stringify(record(all, { subnets: { ...subnets, control: '127.0.0.0/24' } })))
  const numbers = Array.from({ length: gatewaysOf(all) }, (_, index) => index + 1)
  const ports = await Promise.all(numbers.map(freePort))
  const [port = 0] = ports
  const url = (port: number): string => `http://127.0.0.1:${port}`
  const socketOf = (gateway: number): string => join(folder, gateway === 1 ? 'control.sock' : `control-${gateway}.sock`)
  const socket = socketOf(1)
  const processes: AgentProcess[] = []
  const gateways = new Map<number, ChildProcess>()
  let output = ''

  const ask = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const { status, text } = await control(socket, method, path, body)
    if (status !== 200) throw new Error(`${method} ${path}: HTTP ${status} ${text}\n${output}`)
    return JSON.parse(text) as T
  }
  const several = numbers.length === 1 ? {} : { AGENTCTL_GATEWAYS: ports.map(url).join(',') }
  const self: World = {
    port,
    ports: () => ports,
    control: (method, path, body, gateway = 1) => control(socketOf(gateway), method, path, body),
    folder,
    redis,
    token: (agent, replica = 1) => replicaToken(KEY, all.name, { agent, replica }),
    start(agent, options = {}) {
      const replica = options.replica ?? 1
      const concurrency = all.agents[agent]?.concurrency ?? 1
      const started = new AgentProcess({
        port,
        agent,
        replica,
        concurrency,
        token: self.token(agent, replica),
        ...options,
        env: { ...several, ...options.env },
      })
      processes.push(started)
      return started
    },
    module(source) {
      const own = mkdtempSync(join(folder, 'module-'))
      writeFileSync(join(own, 'agent.ts'), source)
      return `module:${join(own, 'agent.ts')}`
    },
    run: async (request) => (await ask<{ run: string }>('POST', '/v1/runs', request)).run,
    submit: (agent, ...tasks) => self.run({ agent, type: 'task', tasks }),
    async ended(run, timeoutMs = 30_000) {
      const view = await ask<RunView>('GET', `/v1/runs/${run}?wait_ms=${timeoutMs}`)
      if (view.status === 'queued' || view.status === 'running') {
        throw new Error(
          `${run} has not ended within ${timeoutMs} ms: ${JSON.stringify(view)}\n${output}\n${processes.map((it) => it.output).join('\n')}`,
        )
      }
      return view
    },
    async task(agent, input) {
      const { jobs } = await self.ended(await self.submit(agent, input))
      const [job] = jobs
      if (job === undefined) throw new Error('a run without a task')
      return job
    },
    async cancel(run) {
      await ask('POST', `/v1/runs/${run}/cancel`)
    },
    async events(run) {
      const { text } = await control(socket, 'GET', `/v1/runs/${run}/events?follow=0`)
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as RunEvent)
    },
    replicas: async () => (await ask<{ replicas: readonly ReplicaView[] }>('GET', '/v1/replicas')).replicas,
    async killGateway(number = 1) {
      const gateway = gateways.get(number)
      if (gateway === undefined) return
      const ended = new Promise((resolve) => gateway.once('exit', resolve))
      gateway.kill('SIGKILL')
      await ended
      gateways.delete(number)
    },
    async startGateway(number = 1) {
      const gateway = spawn(process.execPath, [GATEWAY, '--child'], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
          PATH: process.env['PATH'],
          AGENTCTL_BROKER: `127.0.0.1:${redis.port}`,
          AGENTCTL_RECORD: join(folder, 'record.json'),
          AGENTCTL_SECRETS: secrets,
          AGENTCTL_CONTROL: socketOf(number),
          AGENTCTL_STATE: state,
          AGENTCTL_HOST: '127.0.0.1',
          AGENTCTL_PORT: String(ports[number - 1]),
          ...(numbers.length === 1 ? {} : { AGENTCTL_SHARD: String(number) }),
          ...(numbers.length === 1 || number > 1 ? {} : { AGENTCTL_PEERS: ports.slice(1).map(url).join(',') }),
        },
      })
      gateways.set(number, gateway)
      for (const stream of [gateway.stdout, gateway.stderr]) stream?.on('data', (chunk) => (output += String(chunk)))
      await eventually(
        async () => (await control(socketOf(number), 'GET', '/v1/health').catch(() => null))?.text.includes('"broker":true') === true,
        'a gateway with its broker',
        20_000,
      )
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(processes.map((it) => it.stop()))
      await Promise.all(numbers.map((number) => self.killGateway(number)))
      await redis.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  await Promise.all(numbers.map((number) => self.startGateway(number)))
  await eventually(
    async () => (await control(socket, 'GET', '/v1/health').catch(() => null))?.text.includes('"broker":true,"problem"') === true,
    'gateways with their broker',
    20_000,
  )
  return self
}
