/** A second engine of the suite's own, which can be restarted: its own socket, data, networks without a default bridge. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { openSync, mkdtempSync, rmSync } from 'node:fs'
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

/** Needs root and `dockerd`; throws with the reason when it does not come up. */
export async function secondEngine(): Promise<SecondEngine> {
  // Ours are built on the first one, from there they come by save and load.
  const first = await connectDocker({ environment: process.env })
  const { engine, agent } = await ensureImages(first, { emit: () => undefined, signal: AbortSignal.timeout(600_000) })
  const folder = mkdtempSync(join(tmpdir(), 't-engine-'))
  const socket = join(folder, 'docker.sock')
  const log = openSync(join(folder, 'log'), 'a')
  const docker = new Docker({ socketPath: socket })
  let daemon: ChildProcess | null = null

  const start = async (): Promise<void> => {
    const flags = [
      '-H',
      `unix://${socket}`,
      '--data-root',
      join(folder, 'data'),
      '--exec-root',
      join(folder, 'exec'),
      '--pidfile',
      join(folder, 'pid'),
    ]
    // In a network namespace of its own: beside the machine's engine it would take away the default bridge and change its packet filter.
    const inside = `ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; exec "$@"`
    daemon = spawn('unshare', ['--net', 'sh', '-c', inside, 'sh', 'dockerd', ...flags, '--shutdown-timeout', '5'], {
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
  const dispose = async (): Promise<void> => {
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
    host: `unix://${socket}`,
    async restart() {
      await stop()
      await start()
    },
    [Symbol.asyncDispose]: dispose,
  }
}
