/** A second engine of the suite's own, which can be restarted: its own socket, data, networks without a default bridge. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import Docker from 'dockerode'
import { ensureImages } from '../../engine/images/ensure.ts'
import { connectDocker } from '../../engine/runtimes/docker/connect.ts'

const run = promisify(execFile)
const START_MS = 60_000
const STOP_MS = 60_000

export interface SecondEngine extends AsyncDisposable {
  readonly host: string
  /** As a service manager does: SIGTERM, which ends all containers, and started again when it is gone. */
  restart(): Promise<void>
}

export interface SecondEngineOptions {
  /** It is addressed by a TCP port of the loopback, as an engine on another machine is; what looks for its usual socket beside it finds that. */
  readonly tcp?: boolean
  /** Further flags of dockerd's. */
  readonly flags?: readonly string[]
}

/** Needs root and `dockerd`; throws with the reason when it does not come up. */
export async function secondEngine(options: SecondEngineOptions = {}): Promise<SecondEngine> {
  // Ours are built on the first one, from there they come by save and load.
  const first = await connectDocker({ environment: process.env })
  const { engine, agent } = await ensureImages(first, { emit: () => undefined, signal: AbortSignal.timeout(600_000) })
  const folder = mkdtempSync(join(tmpdir(), 't-engine-'))
  // For its own mounts (with `tcp`) this folder is /run, so that the socket is where an engine on another machine has its own.
  const runFolder = join(folder, 'run')
  mkdirSync(runFolder)
  const socket = join(options.tcp === true ? runFolder : folder, 'docker.sock')
  const log = openSync(join(folder, 'log'), 'a')
  const docker = new Docker({ socketPath: socket })
  let daemon: ChildProcess | null = null

  const start = async (): Promise<void> => {
    const flags = [
      '-H',
      options.tcp === true ? 'unix:///run/docker.sock' : `unix://${socket}`,
      '--data-root',
      join(folder, 'data'),
      '--exec-root',
      join(folder, 'exec'),
      '--pidfile',
      join(folder, 'pid'),
      ...(options.flags ?? []),
    ]
    // In a network namespace of its own: beside the machine's engine it would take away the default bridge and change its packet filter.
    const mounts = options.tcp === true ? `mount --make-rprivate / && mount --bind ${runFolder} /run; ` : ''
    const inside = `${mounts}ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; exec "$@"`
    const apart = options.tcp === true ? ['--net', '--mount'] : ['--net']
    daemon = spawn('unshare', [...apart, 'sh', '-c', inside, 'sh', 'dockerd', ...flags, '--shutdown-timeout', '5'], {
      stdio: ['ignore', log, log],
    })
    const until = Date.now() + START_MS
    while (
      !(await docker.ping().then(
        () => true,
        () => false,
      ))
    ) {
      if (daemon.exitCode !== null || Date.now() > until) {
        const { stdout } = await run('tail', ['-n', '20', join(folder, 'log')])
        throw new Error(`the second engine does not answer within ${START_MS} ms:\n${stdout}`)
      }
      await sleep(200)
    }
  }
  const stop = async (): Promise<void> => {
    const running = daemon
    if (running === null || running.exitCode !== null || running.signalCode !== null) return
    const gone = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGTERM')
    await Promise.race([gone, sleep(STOP_MS, undefined, { ref: false })])
    if (running.exitCode === null && running.signalCode === null) running.kill('SIGKILL')
    await gone
    rmSync(join(folder, 'pid'), { force: true })
  }
  const door = options.tcp === true ? await openDoor(socket) : null
  const dispose = async (): Promise<void> => {
    door?.close()
    for (const { Id } of await docker.listContainers({ all: true }).catch(() => []))
      await docker
        .getContainer(Id)
        .remove({ force: true })
        .catch(() => {})
    await stop()
    await run('sh', ['-c', `grep -o ' ${folder}[^ ]*' /proc/mounts | sort -r | xargs -r umount -l`]).catch(() => {})
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await start()
    for (const image of [engine, agent])
      await run('sh', ['-c', `docker save ${image} | docker -H unix://${socket} load`], { timeout: 300_000 })
  } catch (error) {
    await dispose()
    throw error
  }
  return {
    host: door === null ? `unix://${socket}` : `tcp://127.0.0.1:${door.port}`,
    async restart() {
      await stop()
      await start()
    },
    [Symbol.asyncDispose]: dispose,
  }
}

/** The engine's network has no way in: bytes are handed on to its socket. */
async function openDoor(socket: string): Promise<{ readonly port: number; readonly close: () => void }> {
  const open = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const engine = connect({ path: socket, allowHalfOpen: true })
    for (const [from, to] of [
      [client, engine],
      [engine, client],
    ] as const) {
      open.add(from)
      from.pipe(to)
      from.on('error', () => to.destroy())
      from.on('close', () => {
        open.delete(from)
        to.destroy()
      })
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = (): void => {
    server.close()
    for (const stream of open) stream.destroy()
  }
  return { port: (server.address() as AddressInfo).port, close }
}
