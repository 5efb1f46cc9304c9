import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { LABEL } from '../../../engine/names.ts'
import type { ContainerRuntime, ContainerSpec, EngineEvent } from '../../../engine/ports.ts'
import { containerSpec } from '../../support/container-spec.ts'
import { cleanup, eventually, images, runtime, uniqueProject } from '../../support/docker.ts'

/** The contract of the port `ContainerRuntime`, on the real engine. */
let engine: ContainerRuntime
let image: string
let project = ''

beforeAll(async () => {
  engine = await runtime()
  image = (await images()).agent
})
afterEach(() => cleanup(project))

const spec = (changes: Partial<ContainerSpec> = {}): ContainerSpec => containerSpec({ project, image, ...changes })
const labels = (): { readonly [name: string]: string } => ({ [LABEL.project]: project, [LABEL.kind]: 'agent' })
/** Subnets of this file's own, outside the range that projects take. */
let subnets = 0
const subnet = (): string => `10.209.${subnets++ % 250}.0/24`

async function started(changes: Partial<ContainerSpec> = {}): Promise<string> {
  const id = await engine.createContainer(spec(changes))
  await engine.start(id)
  return id
}
const out = async (container: string, ...command: string[]): Promise<string> =>
  (await engine.exec(container, command)).stdout.toString().trim()

test('a container lives: created, running, exited, gone', async () => {
  project = uniqueProject('t-runtime')
  const id = await engine.createContainer(spec())
  expect(await engine.containers(project)).toMatchObject([
    { id, name: `${project}-a-1`, image, status: 'created', health: null, exit_code: null, labels: labels() },
  ])
  await engine.start(id)
  expect(await engine.containers(project)).toMatchObject([{ status: 'running' }])
  await engine.start(id)
  await engine.stop(id, 1)
  expect(await engine.containers(project)).toMatchObject([{ status: 'exited', exit_code: 143 }])
  await engine.remove(id)
  expect(await engine.containers(project)).toEqual([])
  await engine.remove(id)
})

test('what the spec asks for is what the engine has', async () => {
  project = uniqueProject('t-runtime')
  const id = await started({
    environment: { B: '2', A: '1' },
    cpus: 0.5,
    ulimits: [{ name: 'nofile', soft: 128, hard: 256 }],
    masked_paths: ['/proc/kcore'],
    readonly_paths: ['/proc/sys'],
    healthcheck: { test: ['CMD', 'true'], interval_ms: 1000, timeout_ms: 500, start_period_ms: 0, retries: 2 },
  })
  expect(await engine.inspect(id)).toMatchObject({
    Config: { User: '10001:10001', StopTimeout: 1, Healthcheck: { Test: ['CMD', 'true'], Interval: 1e9, Timeout: 5e8, Retries: 2 } },
    HostConfig: {
      NetworkMode: 'none',
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges=true'],
      Memory: 67_108_864,
      MemorySwap: 67_108_864,
      NanoCpus: 5e8,
      PidsLimit: 64,
      OomScoreAdj: 500,
      CgroupnsMode: 'private',
      IpcMode: 'private',
      Init: true,
      RestartPolicy: { Name: 'no' },
      MaskedPaths: ['/proc/kcore'],
      ReadonlyPaths: ['/proc/sys'],
      LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '3' } },
    },
  })
  const inside = await out(
    id,
    'sh',
    '-c',
    'id -u; echo $A$B; ulimit -n; grep -E "CapEff|CapBnd|NoNewPrivs" /proc/self/status; df -B1 --output=size /tmp | tail -1; grep " /tmp " /proc/mounts; touch /x 2>&1',
  )
  expect(inside.split('\n')).toEqual([
    '10001',
    '12',
    '128',
    expect.stringMatching(/CapEff:\s0{16}/),
    expect.stringMatching(/CapBnd:\s0{16}/),
    expect.stringMatching(/NoNewPrivs:\s1/),
    expect.stringContaining('1048576'),
    expect.stringMatching(/^tmpfs \/tmp tmpfs .*nosuid,nodev,noexec/),
    expect.stringContaining('Read-only file system'),
  ])
  await eventually(async () => (await engine.containers(project))[0]?.health === 'healthy', 10_000, 'healthy')
})

test('events tell of a start, health and an exit with its code, of this project alone', async () => {
  project = uniqueProject('t-runtime')
  const other = uniqueProject('t-runtime')
  const abort = new AbortController()
  const events: EngineEvent[] = []
  const reading = (async () => {
    for await (const event of engine.events(project, Date.now() / 1000, abort.signal)) events.push(event)
  })()
  reading.catch(() => undefined)
  try {
    const stranger = await engine.createContainer(containerSpec({ project: other, image }))
    await engine.remove(stranger)
    const id = await started({
      healthcheck: { test: ['CMD', 'false'], interval_ms: 200, timeout_ms: 500, start_period_ms: 0, retries: 1 },
      entrypoint: ['sh', '-c', 'sleep 3; exit 7'],
      command: [],
    })
    await eventually(async () => events.some(({ action }) => action === 'die'), 15_000, 'the exit')
    expect(events.map(({ action }) => action)).toEqual(['create', 'start', 'unhealthy', 'die'])
    expect(events.at(-1)).toMatchObject({ container: id, name: `${project}-a-1`, labels: labels(), exit_code: 7 })
  } finally {
    abort.abort()
    await cleanup(other)
  }
  await expect(reading).rejects.toMatchObject({ code: 'AG7002' })
})

test('events since a moment in the past are told again', async () => {
  project = uniqueProject('t-runtime')
  const since = Date.now() / 1000 - 0.001
  const id = await engine.createContainer(spec())
  const abort = new AbortController()
  for await (const event of engine.events(project, since, abort.signal)) {
    expect(event).toMatchObject({ action: 'create', container: id })
    break
  }
  abort.abort()
})

test('exec has input, both outputs and the exit code', async () => {
  project = uniqueProject('t-runtime')
  const id = await started()
  const big = 'x'.repeat(300_000)
  const result = await engine.exec(id, ['sh', '-c', 'cat; echo bad >&2; exit 3'], { stdin: Buffer.from(big) })
  expect([result.exit_code, result.stdout.toString() === big, result.stderr.toString()]).toEqual([3, true, 'bad\n'])
  expect((await engine.exec(id, ['sh', '-c', 'echo $V $(pwd)'], { env: ['V=1'], working_dir: '/' })).stdout.toString()).toBe('1 /\n')
})

test('an exec that takes too long says so, and an aborted one is interrupted', async () => {
  project = uniqueProject('t-runtime')
  const id = await started()
  await expect(engine.exec(id, ['sleep', '20'], { timeout_ms: 200 })).rejects.toMatchObject({
    code: 'AG4005',
    message: expect.stringContaining('no answer within 0.2 s'),
  })
  const abort = new AbortController()
  setTimeout(() => abort.abort(), 200)
  await expect(engine.exec(id, ['sleep', '20'], {}, abort.signal)).rejects.toMatchObject({ code: 'AG7002', exit: 130 })
})

test("closing an exec stream ends the command's input, so that it can let go of a lock", async () => {
  project = uniqueProject('t-runtime')
  const id = await started()
  const hold = ['sh', '-c', 'exec flock --exclusive --nonblock /tmp/lock sh -c "echo held; cat >/dev/null"']
  const stream = await engine.execStream(id, hold)
  expect(String(await new Promise((resolve) => stream.stdout.once('data', resolve)))).toBe('held\n')
  expect((await engine.exec(id, hold)).exit_code).toBe(1)
  stream.close()
  // The caller does not wait for the command: it lets go as soon as it reads the end of its input.
  await stream.exit
  await eventually(async () => (await engine.exec(id, hold, { stdin: Buffer.alloc(0) })).exit_code === 0, 5_000, 'the lock is free')
})

test('aborting an exec stream lets go as well: the process that held it may just be dead', async () => {
  project = uniqueProject('t-runtime')
  const id = await started()
  const hold = ['sh', '-c', 'exec flock --exclusive --nonblock /tmp/lock sh -c "echo held; cat >/dev/null"']
  const abort = new AbortController()
  const stream = await engine.execStream(id, hold, {}, abort.signal)
  await new Promise((resolve) => stream.stdout.once('data', resolve))
  abort.abort()
  await expect(stream.exit).rejects.toMatchObject({ code: 'AG7002' })
  await eventually(async () => (await engine.exec(id, hold, { stdin: Buffer.alloc(0) })).exit_code === 0, 5_000, 'the lock is free')
})

test('logs come whole, by stream, with a tail, and follow until the end', async () => {
  project = uniqueProject('t-runtime')
  const id = await started({
    entrypoint: ['sh', '-c', 'i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo bad >&2; sleep 1; echo end'],
    command: [],
  })
  const read = async (follow: boolean, tail: number | null): Promise<{ stdout: string; stderr: string }> => {
    const text = { stdout: '', stderr: '' }
    for await (const { stream, data } of engine.logs(id, { follow, tail, timestamps: false }, AbortSignal.timeout(20_000)))
      text[stream] += data.toString()
    return text
  }
  const all = await read(true, null)
  expect(all.stderr).toBe('bad\n')
  expect(all.stdout.split('\n')).toHaveLength(2002)
  expect(all.stdout.endsWith('line 1999\nend\n')).toBe(true)
  expect(await read(false, 1)).toEqual({ stdout: 'end\n', stderr: '' })
})

test('files arrive with owner and mode, also on a tmpfs volume of a read-only container, and can be read back', async () => {
  project = uniqueProject('t-runtime')
  const volume = await engine.createVolume({ name: `${project}_v`, labels: labels(), tmpfs: 1_048_576 })
  expect(await engine.volume(`${project}_v`)).toEqual(volume)
  const id = await started({ volumes: [{ source: `${project}_v`, target: '/data', read_only: false }] })
  await engine.putFiles(id, '/data', [
    { path: 'folder/token', content: 'secret', mode: 0o400, uid: 10001, gid: 10001 },
    { path: './', content: '', mode: 0o750, uid: 10001, gid: 10001 },
  ])
  expect(await out(id, 'stat', '-c', '%n %u:%g %a', '/data', '/data/folder', '/data/folder/token')).toBe(
    '/data 10001:10001 750\n/data/folder 0:0 755\n/data/folder/token 10001:10001 400',
  )
  const tar = await engine.getArchive(id, '/data/folder/token')
  const chunks: Buffer[] = []
  for await (const chunk of tar) chunks.push(Buffer.from(chunk))
  expect(Buffer.concat(chunks).includes('secret')).toBe(true)
  expect(await out(id, 'sh', '-c', 'grep " /data " /proc/mounts')).toMatch(/tmpfs .*nosuid,nodev,noexec.*size=1024k/)
})

test('a named volume gets its owner before anything runs', async () => {
  project = uniqueProject('t-runtime')
  await engine.createVolume({ name: `${project}_v`, labels: labels(), tmpfs: null })
  const id = await engine.createContainer(spec({ volumes: [{ source: `${project}_v`, target: '/data', read_only: false }] }))
  await engine.putFiles(id, '/data', [{ path: './', content: '', mode: 0o700, uid: 10001, gid: 10001 }])
  await engine.start(id)
  expect(await out(id, 'sh', '-c', 'stat -c "%u:%g %a" /data; touch /data/x && echo written')).toBe('10001:10001 700\nwritten')
})

test('an internal network reaches neither the host nor another network; its members reach each other at fixed addresses', async () => {
  project = uniqueProject('t-runtime')
  const [own, strange] = [subnet(), subnet()]
  const address = (net: string, host: number): string => net.replace('0/24', String(host))
  await engine.createNetwork({ name: `${project}_own`, internal: true, subnet: own, labels: labels() })
  await engine.createNetwork({ name: `${project}_other`, internal: true, subnet: strange, labels: labels() })
  expect(await engine.networks(project)).toMatchObject([{ internal: true }, { internal: true }])
  const serve = ['node', '-e', 'require("net").createServer(s => s.end("hi")).listen(8080)']
  const host = createServer((socket) => socket.end('host'))
  await new Promise<void>((resolve) => host.listen(0, '0.0.0.0', resolve))
  const bound = host.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  try {
    const server = await started({
      name: `${project}-b-1`,
      endpoints: [{ network: `${project}_own`, address: address(own, 2) }],
      entrypoint: serve,
      command: [],
    })
    await started({
      name: `${project}-c-1`,
      endpoints: [{ network: `${project}_other`, address: address(strange, 2) }],
      entrypoint: serve,
      command: [],
    })
    const id = await started({
      endpoints: [{ network: `${project}_own`, address: address(own, 9) }],
      dns: ['127.0.0.1'],
      extra_hosts: { gateway: address(own, 2) },
    })
    expect(
      (await engine.containers(project))
        .map(({ networks }) => Object.values(networks))
        .flat()
        .sort(),
    ).toEqual([address(own, 2), address(own, 9), address(strange, 2)].sort())
    const reach = (target: string): Promise<string> =>
      out(
        id,
        'node',
        '-e',
        `const [h,p]=process.argv[1].split(' ');const s=require("net").connect(p,h);s.setTimeout(1500,()=>{console.log("no");process.exit()});s.on("data",d=>{console.log(""+d);process.exit()});s.on("error",()=>{console.log("no");process.exit()})`,
        target,
      )
    await eventually(async () => (await reach('gateway 8080')) === 'hi', 10_000, 'the server answers')
    expect(await reach(`${address(own, 1)} ${port}`)).toBe('no')
    expect(await reach(`172.17.0.1 ${port}`)).toBe('no')
    expect(await reach(`${address(strange, 2)} 8080`)).toBe('no')
    await engine.connect(server, { network: `${project}_other`, address: address(strange, 3) })
    expect((await engine.containers(project)).find(({ name }) => name === `${project}-b-1`)?.networks).toEqual({
      [`${project}_own`]: address(own, 2),
      [`${project}_other`]: address(strange, 3),
    })
    await engine.disconnect(server, `${project}_other`)
  } finally {
    host.close()
  }
})

test('removing a network waits for its last endpoint, and a missing one is fine', async () => {
  project = uniqueProject('t-runtime')
  const name = `${project}_n`
  await engine.createNetwork({ name, internal: true, subnet: subnet(), labels: labels() })
  const id = await started({ endpoints: [{ network: name, address: null }] })
  const removing = engine.removeNetwork(name)
  await sleep(100)
  await engine.remove(id)
  await removing
  await engine.removeNetwork(name)
})

test('errors say what is wrong, by code', async () => {
  project = uniqueProject('t-runtime')
  await expect(engine.createContainer(spec({ image: 'agentctl-no-such/image' }))).rejects.toMatchObject({ code: 'AG4003' })
  await expect(engine.start(`${project}-none`)).rejects.toMatchObject({ code: 'AG4012' })
  await engine.createContainer(spec())
  await expect(engine.createContainer(spec())).rejects.toMatchObject({ code: 'AG4014' })
  await expect(
    engine.createContainer(spec({ name: `${project}-b-1`, binds: [{ source: '/no/such/folder', target: '/x', read_only: true }] })),
  ).rejects.toMatchObject({
    code: 'AG4005',
    message: expect.stringContaining('/no/such/folder'),
  })
  const name = `${project}_v`
  await engine.createVolume({ name, labels: labels(), tmpfs: null })
  await expect(engine.createVolume({ name, labels: { [LABEL.project]: 'another' }, tmpfs: null })).rejects.toMatchObject({ code: 'AG4014' })
  expect(await engine.image('agentctl-no-such/image')).toBeNull()
  expect(await engine.volume('agentctl-no-such-volume')).toBeNull()
})

test('a port in use is AG4004', async () => {
  project = uniqueProject('t-runtime')
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const bound = taken.address()
  const host_port = typeof bound === 'object' && bound !== null ? bound.port : 0
  try {
    await engine.createNetwork({ name: `${project}_out`, internal: false, subnet: subnet(), labels: labels() })
    const id = await engine.createContainer(
      spec({
        endpoints: [{ network: `${project}_out`, address: null }],
        ports: [{ host_ip: '127.0.0.1', host_port, container_port: 80, protocol: 'tcp' }],
      }),
    )
    await expect(engine.start(id)).rejects.toMatchObject({ code: 'AG4004' })
  } finally {
    taken.close()
  }
})

test('an aborted signal stops a call before it is made', async () => {
  project = uniqueProject('t-runtime')
  await expect(engine.createContainer(spec(), AbortSignal.abort())).rejects.toMatchObject({ code: 'AG7002' })
})

test('an image that cannot be built says so with the end of its output', async () => {
  const { pack } = await import('tar-stream')
  const { Readable } = await import('node:stream')
  const tar = pack()
  tar.entry({ name: 'Dockerfile' }, `FROM ${image}\nRUN echo the-reason && exit 9\n`)
  tar.finalize()
  await expect(engine.buildImage({ context: Readable.from(tar), tags: ['agentctl-test/broken:1'] })).rejects.toMatchObject({
    code: 'AG4013',
    message: expect.stringContaining('the-reason'),
  })
})
