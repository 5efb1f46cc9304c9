/** Puts the gateway together. It listens before the broker is there, and takes over what the gateway before it left. */
import { rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BrokerSettings, Project } from '../../spec/model.ts'
import { GATEWAY_PORT } from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import { gatewayDoor, PATHS, shardProject, shardState } from '../names.ts'
import { EGRESS_TRACES_URL } from '../otlp.ts'
import { peerToken } from '../tokens.ts'
import { agentServer } from './agent-api.ts'
import type { Pace } from './agent/storing.ts'
import { Approvals } from './approvals.ts'
import { Artifacts } from './artifacts.ts'
import { readSecrets, watchRecord } from './config.ts'
import { healthOf } from './control/gateway.ts'
import { controlServer, whenReady } from './control-api.ts'
import type { Log } from './desk.ts'
import { Dispatcher } from './dispatcher.ts'
import { witnessFile } from './far-broker.ts'
import { RunEvents } from './events.ts'
import { Records, type RecordsOptions } from './records.ts'
import { Journals } from './journal.ts'
import { Logs } from './logs.ts'
import { Rereading } from './rereading.ts'
import { Runs } from './runs.ts'
import { door } from './shards/door.ts'
import { finder } from './shards/find.ts'
import { Front } from './shards/front.ts'
import { leftGateways, leftNote } from './shards/left.ts'
import type { ShardHealth } from './shards/merge.ts'
import { Peer } from './shards/peers.ts'
import { TraceForwarder } from './traces.ts'
import { makeTracing } from './tracing.ts'
import { Views } from './views.ts'
import type { Task } from './work.ts'

/** What is under way at a close gets so long to be answered. */
const CLOSE_MS = 1_500

export interface GatewayOptions {
  /** `secrets`: the folder with the password, for a broker of the user's own with its CA. */
  readonly connect: (project: string, password: string, settings: BrokerSettings, secrets: string) => Broker
  readonly record?: string
  readonly secrets?: string
  /** With several: which one this is, from 1 on; of the first, the URLs of the others. */
  readonly shard?: { readonly index: number; readonly peers: readonly string[] }
  readonly host?: string
  readonly port?: number
  readonly controlSocket?: string
  /** A folder of its own that outlives it: archive, artifacts, witness. */
  readonly stateDir?: string
  readonly traces?: string
  /** Only replicas that the controller has proved get work. */
  readonly guarded?: boolean
  /** Tests: less is kept, and what is slow is cut sooner. */
  readonly limits?: RecordsOptions['limits']
  readonly pace?: Pace
  /** With the first record and each later one. */
  readonly configured?: (project: Project) => void
  readonly log?: Log
  readonly signal?: AbortSignal
}
export interface Gateway {
  readonly port: number
  close(): Promise<void>
}

export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const log: Log = options.log ?? (() => {})
  const signal = options.signal ?? new AbortController().signal
  const config = await watchRecord(options.record ?? PATHS.record, signal, (project) => options.configured?.(project), log)
  options.configured?.(config.project)
  const secrets = options.secrets ?? PATHS.secrets
  const { key, password } = await readSecrets(secrets, config.project.broker, signal)
  const { index = 1, peers = [] } = options.shard ?? {}
  const project = config.project.name
  const broker = options.connect(shardProject(project, index), password, config.project.broker, secrets)
  const on = (): boolean => config.project.telemetry !== null
  const tracing = makeTracing(on)
  const stateDir = shardState(options.stateDir ?? PATHS.gatewayState, index)
  const records = await Records.open({
    broker,
    stateDir,
    witness: witnessFile(config.project.broker),
    log,
    agent: config.agent,
    unfinished: (agent) => dispatcher.unfinished(agent),
    allUnfinished: () => dispatcher.allUnfinished,
    flushEvents: () => events.flush(),
    activity: () => ({ touched: runs.takeTouched(), open: runs.openCount }),
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  })
  const { admission, archive, archiver, witness } = records
  const events = new RunEvents(broker, async (run) => (await archive?.read(run, { events: true, task: '' }))?.events ?? [])
  const traces = new TraceForwarder(options.traces ?? EGRESS_TRACES_URL, on)
  const runs = new Runs({
    broker,
    project: () => config.project,
    dispatcher: () => dispatcher,
    tracing,
    log,
    admission,
    archive,
    archiver,
    witness,
    began: (run) => events.begin(run),
  })
  const dispatcher: Dispatcher = new Dispatcher({
    broker,
    key,
    guarded: options.guarded === true,
    tracing,
    events,
    log,
    agent: config.agent,
    concurrency: () => config.project.broker.concurrency,
    open: (run) => runs.isOpen(run),
    ended: (task, status) => {
      artifacts.taskEnded(task, status)
      approvals.taskEnded(task)
      journals.taskEnded(task)
      runs.taskEnded(task, status)
    },
    wanted: (agent, replica) => config.wanted(agent, replica),
  })
  const artifacts = new Artifacts({
    broker,
    root: `${stateDir}/artifacts`,
    settings: () => config.project.artifacts,
    isOpen: (run) => runs.isOpen(run),
    log,
  })
  const approvals = new Approvals({
    broker,
    events,
    log,
    task: (id) => dispatcher.task(id),
    park: (task) => dispatcher.park(task),
    unpark: (task) => dispatcher.unpark(task),
  })
  const journals = new Journals(broker, log)
  const views = new Views(
    broker,
    () => dispatcher,
    archive,
    (run) => artifacts.ofRun(run),
  )
  const abort = new AbortController()
  const besideTasks = async (): Promise<void> => {
    await approvals.recover()
    await journals.recover((id) => dispatcher.task(id) !== undefined)
    await artifacts.recover().catch((error: unknown) => log(`artifacts: ${String(error)}`))
  }
  const ready = takeOver(broker, () => Object.keys(config.project.agents), dispatcher, runs, records, besideTasks, abort.signal, log)
  const shared = { config, broker, stateDir, dispatcher, runs, views, events, records, traces, approvals, artifacts, ready, log }
  const find = finder({ broker, runs, archive, approvals, artifacts, whenReady: () => whenReady(shared) })
  const health = (): ShardHealth => ({ ...healthOf(shared), open: runs.openCount })
  const left = index === 1 ? await leftGateways(stateDir, peers.length + 1) : []
  if (left.length > 0) log(leftNote(left))
  const others = peers.map((url, at) => new Peer(gatewayDoor(at + 2), url, peerToken(key, project)))
  const front = others.length === 0 ? null : new Front({ peers: others, find, health })
  const control = controlServer({ ...shared, ...(front === null ? {} : { front }) })
  const subnet = (): string => config.subnet('control')
  const open = index === 1 ? {} : { door: door({ key, project, subnet, control, find, health, log }) }
  const agents = { ...shared, key, tracing, journals, logs: new Logs(events), ...open }
  const servers = { agents: agentServer(options.pace === undefined ? agents : { ...agents, pace: options.pace }), control }
  const socket = options.controlSocket ?? PATHS.controlSocket
  await rm(socket, { force: true })
  await Promise.all([
    listen(servers.control, { path: socket }),
    listen(servers.agents, { host: options.host ?? '0.0.0.0', port: options.port ?? GATEWAY_PORT }),
  ])
  const sockets = [track(servers.agents), track(servers.control)]
  return {
    port: (servers.agents.address() as AddressInfo).port,
    async close() {
      abort.abort()
      config.close()
      const closed = [servers.agents, servers.control].map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
      dispatcher.close()
      approvals.close()
      artifacts.close()
      front?.close()
      runs.close()
      for (const server of [servers.agents, servers.control]) server.closeIdleConnections()
      const late = new AbortController()
      await Promise.race([
        Promise.all([...closed, ...(broker.connected ? [events.close()] : [])]),
        sleep(CLOSE_MS, undefined, { signal: late.signal }).catch(() => {}),
      ])
      late.abort()
      for (const open of sockets) for (const it of open) it.destroy()
      traces.close()
      await records.close()
      await broker.close()
    },
  }
}

/** From the broker's state to ours, once it answers; tried again until it succeeds. */
async function takeOver(
  broker: Broker,
  agents: () => readonly string[],
  dispatcher: Dispatcher,
  runs: Runs,
  records: Records,
  besideTasks: () => Promise<void>,
  signal: AbortSignal,
  log: (message: string) => void,
): Promise<void> {
  await new Promise<void>((resolve) => {
    const off = broker.onConnected(() => resolve())
    signal.addEventListener('abort', () => off(), { once: true })
  })
  for (let pause = 100; !signal.aborted; pause = Math.min(2 * pause, 2_000)) {
    try {
      const readAll = async (): Promise<readonly Task[]> => {
        const release = await runs.hold()
        try {
          const found = await dispatcher.adopt(new Set([...(await broker.queues()), ...agents()]))
          await runs.recover(found)
          await besideTasks()
          return found
        } finally {
          release()
        }
      }
      await records.reckon()
      const tasks = await readAll()
      const held = tasks.filter((task) => task.lease !== null).length
      log(`ready: ${tasks.length} unfinished task(s), ${held} of them held by replicas`)
      const reading = new Rereading(readAll, signal, log)
      records.onLoss = () => reading.again()
      const again = async (): Promise<void> => {
        if ((await records.reckon()) === null && !reading.isStale) await dispatcher.resync()
        else await reading.again()
      }
      // From now on: each reconnect.
      let first = true
      const off = broker.onConnected(() => {
        if (first) first = false
        else void again().catch((error: unknown) => log(`after the reconnect: ${String(error)}`))
      })
      signal.addEventListener('abort', () => off(), { once: true })
      return
    } catch (error) {
      if (signal.aborted) return
      log(`taking over: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
      await sleep(pause, undefined, { signal }).catch(() => {})
    }
  }
}

function listen(server: Server, where: { readonly path: string } | { readonly host: string; readonly port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function track(server: Server): ReadonlySet<Socket> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return sockets
}
