/**
 * A real Redis for tests, on a loopback port that stays the same through kills and restarts. In a container of the engine image where
 * there is one (the machine need have no Redis); else the redis-server of the PATH.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Docker from 'dockerode'
import { packEntries } from '../../engine/archive.ts'
import { LABEL } from '../../engine/names.ts'
import { images } from './docker.ts'

export interface TestRedis {
  readonly host: '127.0.0.1'
  readonly port: number
  readonly password: string
  /** 0: none. */
  readonly tlsPort: number
  readonly url: string
  /** SIGKILL. */
  kill(): Promise<void>
  /** After a kill: the same data directory, the same port. */
  restart(): Promise<void>
  /** Answers nothing until `thaw`: connections stay open. */
  freeze(): Promise<void>
  thaw(): Promise<void>
  /** A node script in its data directory, while it is killed; what it prints. */
  data(script: string): Promise<string>
  /** With everything it made. */
  stop(): Promise<void>
}
export interface RedisOptions {
  readonly aof?: boolean
  /** More of its command line; %dir% is its folder. */
  readonly flags?: readonly string[]
  /** Files in its folder. */
  readonly files?: { readonly [name: string]: string }
  /** A second port, with TLS: `flags` name the certificate. */
  readonly tls?: boolean
}

const START_MS = 20_000

interface Server {
  kill(): Promise<void>
  start(): Promise<void>
  signal(name: 'pause' | 'unpause'): Promise<void>
  data(script: string): Promise<string>
  remove(): Promise<void>
}

export async function startRedis(options: RedisOptions = {}): Promise<TestRedis> {
  const port = await freePort()
  const password = randomBytes(16).toString('hex')
  const flags = [
    '--requirepass',
    password,
    '--appendonly',
    options.aof === false ? 'no' : 'yes',
    '--appendfsync',
    'everysec',
    '--save',
    '',
    '--maxmemory-policy',
    'noeviction',
    ...(options.flags ?? []),
  ]
  const tlsPort = options.tls === true ? await freePort() : 0
  const more: Extra = { tlsPort, files: options.files ?? {} }
  const server =
    process.env['AGENTCTL_TEST_REDIS'] === 'path' || !(await engineAnswers())
      ? onPath(port, flags, more)
      : await inContainer(port, flags, more)
  await server.start()
  await answering(port, password)
  return {
    host: '127.0.0.1',
    port,
    password,
    tlsPort,
    url: `redis://:${password}@127.0.0.1:${port}`,
    kill: () => server.kill(),
    async restart() {
      await server.start()
      await answering(port, password)
    },
    freeze: () => server.signal('pause'),
    thaw: () => server.signal('unpause'),
    data: (script) => server.data(script),
    stop: () => server.remove(),
  }
}

const engineAnswers = (): Promise<boolean> =>
  new Docker().ping().then(
    () => true,
    () => false,
  )

interface Extra {
  readonly tlsPort: number
  readonly files: { readonly [name: string]: string }
}
const inFolder = (flags: readonly string[], folder: string): readonly string[] => flags.map((flag) => flag.replaceAll('%dir%', folder))

async function inContainer(port: number, flags: readonly string[], { tlsPort, files }: Extra): Promise<Server> {
  const { engine } = await images()
  const docker = new Docker()
  const name = `t-redis-${randomBytes(4).toString('hex')}`
  const container = await docker.createContainer({
    name,
    Image: engine,
    User: '0:0',
    Entrypoint: ['redis-server'],
    Cmd: [
      '--dir',
      '/data',
      '--port',
      '6379',
      '--bind',
      '0.0.0.0',
      '--protected-mode',
      'no',
      ...(tlsPort === 0 ? [] : ['--tls-port', '6380']),
      ...inFolder(flags, '/data'),
    ],
    Labels: { [LABEL.project]: name },
    ExposedPorts: { '6379/tcp': {}, ...(tlsPort === 0 ? {} : { '6380/tcp': {} }) },
    Volumes: { '/data': {} },
    HostConfig: {
      PortBindings: {
        '6379/tcp': [{ HostIp: '127.0.0.1', HostPort: String(port) }],
        ...(tlsPort === 0 ? {} : { '6380/tcp': [{ HostIp: '127.0.0.1', HostPort: String(tlsPort) }] }),
      },
    },
  })
  if (Object.keys(files).length > 0) {
    const entries = Object.entries(files).map(([path, content]) => ({ path, content, mode: 0o644, uid: 0, gid: 0 }))
    await container.putArchive(packEntries(entries), { path: '/data' })
  }
  return {
    start: () => container.start(),
    kill: async () => {
      const gone = container.wait()
      await container.kill()
      await gone
    },
    signal: async (name) => void (name === 'pause' ? await container.pause() : await container.unpause()),
    async data(script) {
      const helper = await docker.createContainer({
        Image: engine,
        User: '0:0',
        Entrypoint: ['node', '-e', script],
        WorkingDir: '/data',
        Tty: true,
        Labels: { [LABEL.project]: name },
        HostConfig: { VolumesFrom: [container.id] },
      })
      try {
        await helper.start()
        await helper.wait()
        return (await helper.logs({ stdout: true, stderr: true })).toString()
      } finally {
        await helper.remove({ force: true })
      }
    },
    remove: () => container.remove({ force: true, v: true }),
  }
}

function onPath(port: number, flags: readonly string[], { tlsPort, files }: Extra): Server {
  execFileSync('redis-server', ['--version'])
  const directory = mkdtempSync(join(tmpdir(), 't-redis-'))
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content)
  const tls = tlsPort === 0 ? [] : ['--tls-port', String(tlsPort)]
  let process: ChildProcess | null = null
  const kill = async (): Promise<void> => {
    const running = process
    if (running === null || running.exitCode !== null || running.signalCode !== null) return
    const gone = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGKILL')
    await gone
  }
  return {
    async start() {
      process = spawn(
        'redis-server',
        ['--dir', directory, '--port', String(port), '--bind', '127.0.0.1', ...tls, ...inFolder(flags, directory)],
        { stdio: 'ignore' },
      )
    },
    kill,
    signal: async (name) => void process?.kill(name === 'pause' ? 'SIGSTOP' : 'SIGCONT'),
    data: async (script) => execFileSync(globalThis.process.execPath, ['-e', script], { cwd: directory, encoding: 'utf8' }),
    async remove() {
      await kill()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

async function answering(port: number, password: string): Promise<void> {
  const until = Date.now() + START_MS
  while (!(await ping(port, password))) {
    if (Date.now() > until) throw new Error(`redis does not answer on port ${port} within ${START_MS} ms`)
    await sleep(50)
  }
}

function ping(port: number, password: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port }, () => socket.write(`AUTH ${password}\r\nPING\r\n`))
    let text = ''
    const done = (ok: boolean): void => {
      socket.destroy()
      resolve(ok)
    }
    socket.setTimeout(1_000, () => done(false))
    socket.on('error', () => done(false))
    socket.on('close', () => done(false))
    socket.on('data', (chunk) => {
      text += chunk.toString()
      if (text.includes('+PONG')) done(true)
      else if (text.includes('-')) done(false)
    })
  })
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => (typeof address === 'object' && address !== null ? resolve(address.port) : reject(new Error('no port'))))
    })
  })
}
