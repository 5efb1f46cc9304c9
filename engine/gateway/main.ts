/**
 * The gateway's program. Process 1 is a tiny supervisor that starts the gateway proper as its child and starts it again when it dies:
 * within the container, because connecting a new container to forty networks takes the engine 8 s.
 */
import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectBroker } from '../broker/bullmq.ts'
import type { BrokerProblem } from '../broker/port.ts'
import { startTelemetry, type Telemetry } from '../telemetry/setup.ts'
import { GUARD_ENV, SHARD_ENV } from '../names.ts'
import { EGRESS_TRACES_URL } from '../otlp.ts'
import { Redactor } from '../redact.ts'
import { farBroker } from './far-broker.ts'
import { startGateway } from './start.ts'

const MIN_PAUSE_MS = 100
const MAX_PAUSE_MS = 2_000
/** A child that lived for so long has nothing to do with the one before. */
const STABLE_MS = 10_000
const SIGNALS = ['SIGTERM', 'SIGINT'] as const

/** Its own two secrets; it is told none of the file. */
const redactor = new Redactor()
const log = (message: string, fields: { readonly [name: string]: unknown } = {}): void =>
  void process.stdout.write(redactor.redact(`${JSON.stringify({ at: new Date().toISOString(), part: 'gateway', message, ...fields })}\n`))

async function supervise(): Promise<void> {
  const stop = new AbortController()
  let child: ReturnType<typeof spawn> | null = null
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      stop.abort()
      child?.kill(signal)
    })
  }
  for (let pause = MIN_PAUSE_MS; !stop.signal.aborted; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
    const started = Date.now()
    const code = await new Promise<string>((resolve) => {
      child = spawn(process.execPath, [...process.execArgv, process.argv[1] as string, '--child'], { stdio: 'inherit' })
      child.once('error', (error) => resolve(error.message))
      child.once('exit', (status, signal) => resolve(signal ?? String(status)))
    })
    if (stop.signal.aborted) return
    log(`the gateway process ended (${code}); it is started again`)
    if (Date.now() - started > STABLE_MS) pause = MIN_PAUSE_MS
    await sleep(pause, undefined, { signal: stop.signal }).catch(() => {})
  }
}

async function serve(): Promise<void> {
  const { env } = process
  const stop = new AbortController()
  const stopped = Promise.withResolvers<void>()
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      stop.abort()
      stopped.resolve()
    })
  }
  // A supervisor that died takes its child along: two gateways would share one socket.
  const parent = process.ppid
  setInterval(() => process.ppid !== parent && stopped.resolve(), 1_000).unref()
  const [host = 'broker', port = '6379'] = (env['AGENTCTL_BROKER'] ?? 'broker:6379').split(':')
  const traces = env['AGENTCTL_OTLP'] ?? EGRESS_TRACES_URL
  let telemetry: Promise<Telemetry | null> = Promise.resolve(null)
  const gateway = await startGateway({
    // `telemetry:` may come and go with a later `up`.
    configured: (project) => {
      telemetry = telemetry.then(async (running) => {
        if (project.telemetry !== null)
          return running ?? (await startTelemetry({ service: 'agentctl-gateway', project: project.name, url: traces }))
        await running?.stop()
        return null
      })
    },
    connect: (project, password, settings, secrets) => {
      const relay = env['AGENTCTL_BROKER'] === undefined ? undefined : { host, port: Number(port) }
      const far = farBroker(settings, secrets, relay)
      redactor.learn({ 'broker-password': password })
      const note = (problem: BrokerProblem | null): void =>
        log(problem === null ? 'connected to the broker' : `${problem.code}: ${problem.message}`)
      return connectBroker({ project, ...(far ?? { host, port: Number(port), password }), note })
    },
    ...(env[SHARD_ENV.shard] === undefined
      ? {}
      : { shard: { index: Number(env[SHARD_ENV.shard]), peers: (env[SHARD_ENV.peers] ?? '').split(',').filter((url) => url !== '') } }),
    traces,
    log,
    signal: stop.signal,
    ...(env['AGENTCTL_RECORD'] === undefined ? {} : { record: env['AGENTCTL_RECORD'] }),
    ...(env['AGENTCTL_SECRETS'] === undefined ? {} : { secrets: env['AGENTCTL_SECRETS'] }),
    ...(env['AGENTCTL_CONTROL'] === undefined ? {} : { controlSocket: env['AGENTCTL_CONTROL'] }),
    ...(env['AGENTCTL_MIN_FREE_BYTES'] === undefined ? {} : { limits: { minFreeBytes: Number(env['AGENTCTL_MIN_FREE_BYTES']) } }),
    ...(env['AGENTCTL_STATE'] === undefined ? {} : { stateDir: env['AGENTCTL_STATE'] }),
    guarded: env[GUARD_ENV] === '1',
    ...(env['AGENTCTL_HOST'] === undefined ? {} : { host: env['AGENTCTL_HOST'] }),
    ...(env['AGENTCTL_PORT'] === undefined ? {} : { port: Number(env['AGENTCTL_PORT']) }),
  })
  log(`listening on port ${gateway.port}`)
  await stopped.promise
  await gateway.close()
  await telemetry.then((running) => running?.stop(500))
  process.exit(0)
}

if (process.argv.includes('--child')) {
  // An error that nobody caught: end, and be started again with what the broker holds.
  process.on('unhandledRejection', (error) => {
    log(`unhandled: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    process.exit(1)
  })
  await serve().catch((error: unknown) => {
    if (error instanceof Error && error.name === 'AbortError') process.exit(0)
    log(error instanceof Error ? (error.stack ?? error.message) : String(error))
    process.exit(1)
  })
} else await supervise()
