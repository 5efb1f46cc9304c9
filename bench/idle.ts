/**
 * What idle agents cost the gateway: 5,000 sessions of 50 processes over loopback, each with a request open. Memory: what they add to the
 * gateway's RSS. CPU: of the gateway over 20 s, against the same gateway with no session.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { TRUSTED_SECRETS } from '../engine/names.ts'
import { agent, project, record } from '../test/support/project.ts'
import { startRedis } from '../test/support/redis.ts'
import { remark, report, ROOT } from './support.ts'

const PROCESSES = 50
const SESSIONS = 100
const REST_MS = 35_000
const OVER_MS = 20_000
const MB = 1_000_000
const MEMORY_MB = 250
/** Of one core: under it the clock ticks of the kernel (10 ms) and what else the machine does are the larger part. */
const CPU_PERCENT = 3
const KEY = 'ab'.repeat(32)
const PROJECT = 'p'

export async function benchIdle(processes: number = PROCESSES, sessions: number = SESSIONS): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'agentctl-bench-idle-'))
  const redis = await startRedis()
  const children: ChildProcess[] = []
  try {
    writeFileSync(join(folder, TRUSTED_SECRETS.projectKey), KEY)
    writeFileSync(join(folder, TRUSTED_SECRETS.brokerPassword), redis.password)
    writeFileSync(join(folder, 'record.json'), JSON.stringify(record({ ...project({ agents: [agent('a')] }), name: PROJECT })))
    const port = await freePort()
    const gateway = spawn(process.execPath, [join(ROOT, 'engine/gateway/main.ts'), '--child'], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        AGENTCTL_BROKER: `${redis.host}:${redis.port}`,
        AGENTCTL_RECORD: join(folder, 'record.json'),
        AGENTCTL_SECRETS: folder,
        AGENTCTL_STATE: join(folder, 'state'),
        AGENTCTL_CONTROL: join(folder, 'control.sock'),
        AGENTCTL_HOST: '127.0.0.1',
        AGENTCTL_PORT: String(port),
      },
    })
    children.push(gateway)
    await until('the gateway answers', 20_000, async () => (await connected(join(folder, 'control.sock'))) !== null)
    await sleep(3_000)
    const pid = gateway.pid ?? 0
    const alone = await measure(pid)
    for (let at = 0; at < processes; at++) {
      const client = spawn(process.execPath, [join(ROOT, 'bench/idle-client.ts')], {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: {
          ...process.env,
          KEY,
          PROJECT,
          PORT: String(port),
          ADDRESS: `127.1.${at >> 7}.${(at & 127) + 1}`,
          FROM: String(at * sessions + 1),
          COUNT: String(sessions),
        },
      })
      children.push(client)
      await answer(client, `connected ${sessions}\n`)
      client.stdout?.on('data', (chunk: Buffer) => process.stderr.write(`client ${at}: ${chunk.toString()}`))
    }
    const all = processes * sessions
    const view = (): Promise<number | null> => connected(join(folder, 'control.sock'))
    await until('all sessions are open', 60_000, async () => (await view()) === all)
    // Each has asked again by then, so that nothing of the start is left.
    await sleep(REST_MS)
    const busy = await measure(pid)
    const open = await view()
    if (open !== all) throw new Error(`${open} of ${all} sessions are open at the end`)
    const added = busy.rss - alone.rss
    const cpu = busy.cpu - alone.cpu
    report(`memory of ${all} idle sessions in the gateway`, `${(added / MB).toFixed(0)} MB`, `≤ ${MEMORY_MB} MB`, added <= MEMORY_MB * MB)
    report(`CPU of ${all} idle sessions in the gateway`, `${cpu.toFixed(1)} %`, `≤ ${CPU_PERCENT} %`, cpu <= CPU_PERCENT)
    remark(
      `of one core, over ${OVER_MS / 1_000} s: ${busy.cpu.toFixed(1)} % with them, ${alone.cpu.toFixed(1)} % without; RSS ${(busy.rss / MB).toFixed(0)} MB against ${(alone.rss / MB).toFixed(0)} MB`,
    )
  } finally {
    await Promise.all(children.map(stop))
    await redis.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function measure(pid: number): Promise<{ readonly rss: number; readonly cpu: number }> {
  const before = ticks(pid)
  const from = performance.now()
  await sleep(OVER_MS)
  // Ticks are hundredths of a second on every Linux.
  const cpu = ((ticks(pid) - before) * 10 * 100) / (performance.now() - from)
  return { cpu, rss: Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1_024 }
}

function ticks(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

/** How many replicas are connected; null: no answer. */
function connected(socketPath: string): Promise<number | null> {
  return new Promise((resolve) => {
    const sent = request({ socketPath, path: '/v1/replicas', timeout: 10_000 }, (reply) => {
      let text = ''
      reply.setEncoding('utf8')
      reply.on('data', (chunk: string) => (text += chunk))
      reply.on('end', () => {
        const { replicas } = reply.statusCode === 200 ? (JSON.parse(text) as { replicas: { connected: boolean }[] }) : { replicas: null }
        resolve(replicas === null ? null : replicas.filter((it) => it.connected).length)
      })
    })
    sent.on('error', () => resolve(null)).on('timeout', () => sent.destroy())
    sent.end()
  })
}

async function until(what: string, ms: number, check: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + ms; !(await check()); await sleep(200))
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`)
}

function answer(child: ChildProcess, expected: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = ''
    child.once('exit', (code) => reject(new Error(`a client exited with ${code}`)))
    child.stdout?.on('data', function listen(chunk: Buffer) {
      text += chunk.toString()
      if (!text.includes(expected)) return
      child.stdout?.off('data', listen)
      resolve()
    })
  })
}

const stop = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once('exit', () => resolve())
    child.kill('SIGKILL')
  })

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer().once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
