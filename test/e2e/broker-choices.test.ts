/** Whose broker, and what it writes: changed while there is work, nothing is lost and nothing else is made anew. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import Docker from 'dockerode'
import { expect, test } from 'vitest'
import { LABEL, networkName } from '../../engine/names.ts'
import { images } from '../support/docker.ts'
import { type Stack, stack } from '../support/stack.ts'

const docker = new Docker()
const AGENT = 'agents:\n  worker: { mem_limit: 64m, pids_limit: 32'
const task = (command: string, agent = 'worker') => ({ agent, type: 'task', tasks: [{ command }] })

async function works(project: Stack): Promise<void> {
  const view = await project.ended(await project.submit(task('echo here')))
  expect(view).toMatchObject({ status: 'completed', jobs: [{ result: { stdout: 'here\n' } }] })
}
const ids = async ({ runtime, name }: Stack): Promise<ReadonlyMap<string, string>> =>
  new Map((await runtime.containers(name)).map((it) => [it.name.slice(name.length + 1), it.id]))
const listed = async ({ control }: Stack): Promise<readonly string[]> => (await control.runs()).runs.map((it) => it.run).sort()
const changed = (before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): readonly string[] =>
  [...after.keys()].filter((name) => before.get(name) !== after.get(name)).sort()
const eventually = async (what: string, done: () => Promise<boolean>): Promise<void> => {
  for (const end = Date.now() + 20_000; !(await done()); await sleep(100)) if (Date.now() > end) throw new Error(`not within 20 s: ${what}`)
}

/** A Redis of somebody's, in the network that the egress container alone has beside the control network. */
async function foreignRedis(
  project: string,
  password: string,
): Promise<AsyncDisposable & { command(...words: readonly string[]): Promise<string> }> {
  const { engine } = await images()
  const name = `t-far-redis-${randomBytes(4).toString('hex')}`
  const container = await docker.createContainer({
    name,
    Image: engine,
    User: '0:0',
    Entrypoint: ['redis-server'],
    Cmd: ['--dir', '/data', '--bind', '0.0.0.0', '--protected-mode', 'no', '--requirepass', password, '--appendonly', 'yes', '--save', ''],
    Labels: { [LABEL.project]: name },
    Volumes: { '/data': {} },
    HostConfig: { NetworkMode: networkName(project, 'outside') },
    NetworkingConfig: { EndpointsConfig: { [networkName(project, 'outside')]: { Aliases: ['redis.example'] } } },
  })
  await container.start()
  return {
    async command(...words) {
      const exec = await container.exec({
        Cmd: ['redis-cli', '--no-auth-warning', '-a', password, ...words],
        AttachStdout: true,
        AttachStderr: true,
      })
      const stream = await exec.start({})
      const chunks: Buffer[] = []
      for await (const chunk of stream) chunks.push(chunk as Buffer)
      return Buffer.concat(chunks).toString('utf8')
    },
    [Symbol.asyncDispose]: () => container.remove({ force: true, v: true }),
  }
}

test('durability in all directions keeps the work; a policy is followed without a new container', async () => {
  await using project = await stack('t-durability', { 'agents.yaml': `${AGENT} }\n` })
  const setting = async (): Promise<string> =>
    (await project.exec('agentctl-broker-1', ['grep', '-E', '^(appendonly|appendfsync)', '/run/secrets/redis.conf'])).text.replaceAll(
      '\n',
      ' ',
    )
  expect(await setting()).toBe('appendonly yes appendfsync everysec')
  await works(project)
  for (const [durability, lines] of [
    ['strict', 'appendonly yes appendfsync always'],
    ['none', 'appendonly no'],
    ['normal', 'appendonly yes appendfsync everysec'],
  ] as const) {
    const [before, runs] = [await ids(project), await listed(project)]
    // Under way while Redis goes and comes.
    const open = await project.submit(task('sleep 4; echo through'))
    await project.up({ 'agents.yaml': `${AGENT} }\nbroker: { durability: ${durability} }\n` })
    expect(changed(before, await ids(project)), durability).toEqual(['agentctl-broker-1'])
    expect(await setting()).toBe(lines)
    const view = await project.ended(open)
    expect([view.status, view.jobs[0]?.attempts], durability).toEqual(['completed', 1])
    expect(await listed(project)).toEqual([...runs, open].sort())
    expect(await project.control.health()).toMatchObject({ broker_loss: null })
  }

  const before = await ids(project)
  await project.up({
    'agents.yaml': `${AGENT}, max_queue: 1, concurrency: { total: 1 } }\nbroker: { durability: normal, concurrency: 9 }\n`,
  })
  expect(changed(before, await ids(project))).toEqual([])
  await eventually('the gateway follows: a second task is refused', async () => {
    const answers = await Promise.allSettled([1, 2, 3].map(() => project.submit(task('sleep 2'))))
    const submitted = answers.flatMap((it) => (it.status === 'fulfilled' ? [it.value] : []))
    for (const run of submitted) await project.ended(run)
    return answers.some((it) => it.status === 'rejected' && (it.reason as { code?: string }).code === 'AG6008')
  })
}, 240_000)

test('a broker of one’s own: reached by the relay alone, refused with the reason, not entered or left with unfinished work', async () => {
  const password = randomBytes(12).toString('hex')
  await using project = await stack('t-far', { 'agents.yaml': `${AGENT} }\n`, 'redis-password': `${password}\n` })
  await using redis = await foreignRedis(project.name, password)
  const file = (url: string, more = ''): { readonly [path: string]: string } => ({
    'agents.yaml': `${AGENT} }\nbroker: { url: "${url}", password: { secret: redis }${more} }\nsecrets: { redis: { file: ./redis-password } }\n`,
  })
  await works(project)
  const own = await listed(project)

  const open = await project.submit(task('sleep 6'))
  await expect(project.up(file('redis://redis.example/0'))).rejects.toMatchObject({ code: 'AG5005' })
  expect((await project.ended(open)).status).toBe('completed')

  await project.up(file('redis://redis.example/0'))
  const names = [...(await ids(project)).keys()]
  expect(names.filter((name) => name.startsWith('agentctl-')).sort()).toEqual(
    ['controller', 'egress', 'gateway', 'secrets'].map((part) => `agentctl-${part}-1`),
  )
  await works(project)
  expect(await project.control.health()).toMatchObject({ broker: true, broker_loss: null })
  expect(Number((await redis.command('dbsize')).trim().replace(/\D+/g, ''))).toBeGreaterThan(0)
  // The record tells no secret.
  const record = await project.exec('agentctl-gateway-1', ['cat', '/state/record.json'])
  expect(record.text).toContain('redis://redis.example:6379/0')
  expect(record.text).not.toContain(password)

  // An agent reaches neither the relay nor the broker; it has no route to either network.
  const networks = await project.runtime.networks(project.name)
  const egress = (await project.runtime.containers(project.name)).find((it) => it.name.endsWith('-agentctl-egress-1'))
  const addresses = networks.flatMap((network) => egress?.networks[network.name] ?? [])
  expect(addresses.length).toBe(2)
  for (const address of addresses) {
    const tried = await project.node(
      'worker-1',
      `const s = require('net').connect({ host: '${address}', port: 6379, timeout: 3000 })
       s.on('connect', () => { console.log('connected'); process.exit() })
       s.on('timeout', () => { console.log('no way'); process.exit() })
       s.on('error', (e) => { console.log('no way', e.code); process.exit() })`,
    )
    expect(tried).toContain('no way')
  }

  // Settings that lose work: `up` ends with the reason, and the project is whole again when they are right.
  await redis.command('config', 'set', 'maxmemory', '100mb')
  await redis.command('config', 'set', 'maxmemory-policy', 'allkeys-lru')
  await expect(project.up(file('redis://redis.example/1'))).rejects.toThrow(/AG5003[\s\S]*maxmemory-policy is allkeys-lru/)
  expect(await project.control.health()).toMatchObject({ broker: false, problem: { code: 'AG5003' } })
  await redis.command('config', 'set', 'maxmemory-policy', 'noeviction')
  await project.up(file('redis://redis.example/1'))
  await works(project)

  // Back to ours: what it held is there.
  await project.up({ 'agents.yaml': `${AGENT} }\n` })
  expect(await listed(project)).toEqual(expect.arrayContaining([...own, open]))
  await works(project)
  // Another broker is no lost one.
  expect(await project.control.health()).toMatchObject({ broker: true, broker_loss: null })
}, 240_000)
