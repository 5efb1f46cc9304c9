/** The program in an agent's container, and (with `--module-thread FILE`) the thread that runs a user's module. */
import { closeSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SESSION_HEADER } from '../spec/protocol.ts'
import { type AgentConfig, ConfigError, readConfig } from './config.ts'
import type { Handler, TaskServices } from './handler.ts'
import { log } from './log.ts'
import { Supervisor } from './supervisor.ts'

const THREAD_FLAG = '--module-thread'
/** Of the container's memory limit, what the module's heap may take; without a limit, a fixed amount. */
const HEAP_SHARE = 0.6
const UNLIMITED_HEAP_MB = 2_048
const MB = 1_048_576
/** Of a task's id in the name of its folder: a name has at most 255 bytes. */
const MAX_NAME = 200

/** Unguessable. Not by node:crypto, which an idle replica would pay 1.5 MB for. */
function sessionId(): string {
  const bytes = Buffer.alloc(16)
  const file = openSync('/dev/urandom', 'r')
  readSync(file, bytes)
  closeSync(file)
  return bytes.toString('hex')
}

function heapMb(): number {
  const limit = process.constrainedMemory()
  // Without a limit the kernel's answer is near 2^63.
  if (limit === 0 || limit > 2 ** 50) return UNLIMITED_HEAP_MB
  return Math.max(32, Math.floor((limit / MB) * HEAP_SHARE))
}

/** The folder that holds those of the executions. Per replica: `/workspace` may be a volume that all have. What a killed process left goes. */
function workspaces({ workspace, agent, replica }: AgentConfig): string {
  const folder = join(workspace, '.tasks', `${agent}-${replica}`)
  rmSync(folder, { recursive: true, force: true })
  return folder
}

async function makeHandlers(config: AgentConfig): Promise<(services: TaskServices) => Handler> {
  const { handler, workspace } = config
  if (handler.kind === 'exec') {
    const { execHandler } = await import('./exec.ts')
    return (services) => execHandler(workspace, services.log)
  }
  const { moduleHandler } = await import('./module-host.ts')
  const { file } = handler
  const folder = workspaces(config)
  return (services) =>
    moduleHandler({
      file,
      entry: fileURLToPath(import.meta.url),
      memoryMb: config.heapMb ?? heapMb(),
      services,
      workspace: ({ n, leased }) => join(folder, `${n}-${leased.id.slice(-MAX_NAME)}.${leased.attempt}`),
    })
}

function markReady(file: string, isReady: boolean): void {
  try {
    if (isReady) writeFileSync(file, '')
    else rmSync(file, { force: true })
  } catch (error) {
    log('warn', `cannot write ${file}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function main(): Promise<void> {
  const config = readConfig(process.env)
  markReady(config.readyFile, false)
  const supervisor = new Supervisor({
    config,
    headers: { authorization: `Bearer ${config.token}`, [SESSION_HEADER]: sessionId() },
    handler: await makeHandlers(config),
    onConnected(connected) {
      markReady(config.readyFile, connected)
      log('info', connected ? 'connected to the gateway' : 'waiting for the gateway')
    },
  })
  let isStopping = false
  const stop = (): void => {
    if (isStopping) return
    isStopping = true
    void supervisor.stop(config.stopGraceMs).then(() => {
      markReady(config.readyFile, false)
      process.exit(0)
    })
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  supervisor.start()
}

const [, , flag, file] = process.argv
if (flag === THREAD_FLAG && file !== undefined) {
  const { runModuleThread } = await import('./module-thread.ts')
  runModuleThread(file)
} else {
  await main().catch((error: unknown) => {
    log('error', error instanceof ConfigError ? error.message : String(error instanceof Error ? error.stack : error))
    process.exit(1)
  })
}
