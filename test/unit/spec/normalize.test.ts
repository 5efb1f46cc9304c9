import { expect, test } from 'vitest'
import { DEFAULT_ARTIFACTS, DEFAULT_BROKER, DEFAULT_WORK, DEFAULTS } from '../../../spec/model.ts'
import { loadText, project } from './loading.ts'

const agent = (text: string, environment?: { [name: string]: string }) =>
  project(`agents:\n  a: ${text}\nservices: { s: { image: "x:1" } }\nvolumes: { v: }\nsecrets: { k: { file: ./k } }\n`, environment).agents[
    'a'
  ]

test('an agent that says nothing gets the defaults', () => {
  expect(project('agents: { worker: }\n')).toEqual({
    name: 'demo',
    agents: {
      worker: {
        name: 'worker',
        image: null,
        command: null,
        entrypoint: null,
        environment: {},
        replicas: 1,
        depends_on: {},
        healthcheck: null,
        mounts: [],
        mem_limit: DEFAULTS.agent.mem_limit,
        cpus: 1,
        pids_limit: 256,
        user: '10001:10001',
        working_dir: null,
        labels: {},
        secrets: [],
        role: 'worker',
        handler: { kind: 'exec' },
        concurrency: 1,
        delegates_to: [],
        uses: [],
        isolation: { reuse: 'role' },
        ready_timeout_ms: 30_000,
        work: DEFAULT_WORK,
      },
    },
    services: {},
    secrets: {},
    volumes: {},
    pipelines: {},
    telemetry: null,
    broker: DEFAULT_BROKER,
    artifacts: DEFAULT_ARTIFACTS,
  })
})

test('the handler follows from image and key', () => {
  expect(agent('{ image: "my:1" }')?.handler).toEqual({ kind: 'image' })
  expect(agent('{ image: "my:1", handler: exec }')?.handler).toEqual({ kind: 'exec' })
  expect(agent('{ handler: { module: ./x.ts } }')?.handler).toEqual({ kind: 'module', path: '/home/user/demo/x.ts' })
})

test('who delegates is an orchestrator unless the file says otherwise', () => {
  expect(agent('{ delegates_to: [a] }')?.role).toBe('orchestrator')
  expect(agent('{ delegates_to: [a], role: worker }')?.role).toBe('worker')
})

test('commands and entrypoints as string or list', () => {
  expect(agent(`{ command: "sh -c 'a b'", entrypoint: [x, 1, true] }`)).toMatchObject({
    command: ['sh', '-c', 'a b'],
    entrypoint: ['x', '1', 'true'],
  })
  expect(agent('{ command: "", entrypoint: [] }')).toMatchObject({ command: [], entrypoint: [] })
  expect(agent('{ command: }')?.command).toBeNull()
})

test('environment and labels as map or list; without a value from the environment', () => {
  const environment = { HOME: '/home/user', LANG: 'C' }
  expect(
    agent('{ environment: { A: 1, B: true, C: 1.5, LANG: , NO: , BIG: 12345678901234567890, D: "" } }', environment)?.environment,
  ).toEqual({ A: '1', B: 'true', C: '1.5', LANG: 'C', BIG: '12345678901234567890', D: '' })
  expect(agent('{ environment: [A=1, B=, LANG, NO, "C=x=y"] }', environment)?.environment).toEqual({ A: '1', B: '', LANG: 'C', C: 'x=y' })
  expect(agent('{ labels: { a: 1, b: } }')?.labels).toEqual({ a: '1', b: '' })
  expect(agent('{ labels: [a=1, b] }')?.labels).toEqual({ a: '1', b: '' })
})

test('depends_on as list or map', () => {
  expect(agent('{ depends_on: [s] }')?.depends_on).toEqual({ s: { condition: 'service_started' } })
  expect(agent('{ depends_on: { s: } }')?.depends_on).toEqual({ s: { condition: 'service_started' } })
  expect(agent('{ depends_on: { s: { condition: service_completed_successfully } } }')?.depends_on).toEqual({
    s: { condition: 'service_completed_successfully' },
  })
})

test('healthchecks', () => {
  expect(agent('{ healthcheck: { test: curl x, interval: 1m30s, timeout: 5s, start_period: 500ms, retries: 2 } }')?.healthcheck).toEqual({
    test: ['CMD-SHELL', 'curl x'],
    interval_ms: 90_000,
    timeout_ms: 5000,
    start_period_ms: 500,
    retries: 2,
  })
  expect(agent('{ healthcheck: { test: [CMD, a, b] } }')?.healthcheck).toEqual({ test: ['CMD', 'a', 'b'] })
  expect(agent('{ healthcheck: { disable: true } }')?.healthcheck).toEqual({ test: ['NONE'] })
  expect(agent('{ healthcheck: { test: [NONE], interval: 3s } }')?.healthcheck).toEqual({ test: ['NONE'] })
})

test('mounts: short, long, home, tmpfs', () => {
  const text =
    '{ volumes: ["./d:/d:ro", "../e:/e/", "~/f:/f", v:/v, { type: bind, source: g, target: /g, read_only: true }, { type: volume, source: v, target: /v2 }, { type: tmpfs, target: /t, tmpfs: { size: 1m } }], tmpfs: ["/u:size=2m", /workspace] }'
  expect(agent(text)?.mounts).toEqual([
    { type: 'bind', source: '/home/user/demo/d', target: '/d', read_only: true },
    { type: 'bind', source: '/home/user/e', target: '/e', read_only: false },
    { type: 'bind', source: '/home/user/f', target: '/f', read_only: false },
    { type: 'volume', source: 'v', target: '/v', read_only: false },
    { type: 'bind', source: '/home/user/demo/g', target: '/g', read_only: true },
    { type: 'volume', source: 'v', target: '/v2', read_only: false },
    { type: 'tmpfs', target: '/t', size: 1048576 },
    { type: 'tmpfs', target: '/u', size: 2097152 },
    { type: 'tmpfs', target: '/workspace', size: DEFAULTS.tmpfs.workspace },
  ])
  expect(agent('{ tmpfs: /x }')?.mounts).toEqual([{ type: 'tmpfs', target: '/x', size: DEFAULTS.tmpfs.tmp }])
})

test('users of agents get their own group: a bare uid would be in group 0', () => {
  expect(agent('{ user: 1000 }')?.user).toBe('1000:1000')
  expect(agent('{ user: "1000:2000" }')?.user).toBe('1000:2000')
  expect(project('services: { s: { image: "x:1", user: redis }, t: { image: "x:1" } }\n').services).toMatchObject({
    s: { user: 'redis' },
    t: { user: null },
  })
})

test('secrets: short, long, absolute target', () => {
  expect(agent('{ secrets: [k, { source: k, target: other }, { source: k, target: /run/secrets/third }] }')?.secrets).toEqual([
    { source: 'k', target: 'k' },
    { source: 'k', target: 'other' },
    { source: 'k', target: 'third' },
  ])
  expect(project('agents: { a: }\nsecrets: { f: { file: ./k }, h: { file: ~/k }, e: { environment: KEY } }\n').secrets).toEqual({
    f: { name: 'f', kind: 'file', path: '/home/user/demo/k' },
    h: { name: 'h', kind: 'file', path: '/home/user/k' },
    e: { name: 'e', kind: 'environment', variable: 'KEY' },
  })
})

test('secrets: owner, mode in octal however it is written, a path of its own', () => {
  expect(
    agent(
      '{ secrets: [{ source: k, target: /etc//app/../key, uid: 10001, gid: "20000", mode: 0440 }, { source: k, target: b, mode: "0400" }, { source: k, target: c, mode: 0o444 }] }',
    )?.secrets,
  ).toEqual([
    { source: 'k', target: '/etc/key', uid: 10001, gid: 20000, mode: 0o440 },
    { source: 'k', target: 'b', mode: 0o400 },
    { source: 'k', target: 'c', mode: 0o444 },
  ])
})

test('secrets from commands: a name stays one, a path becomes absolute; defaults', () => {
  const command = { kind: 'command', timeout_ms: 30_000, max_size: 512_000, pass_env: [], working_dir: '/home/user/demo' }
  expect(
    project(`agents: { a: }
secrets:
  a: { command: [op, read, "op://x/y z"] }
  b: { command: [./bin/show, ~/not-a-path] }
  c: { command: [~/bin/show], timeout: 5s, max_size: 1k, pass_env: [TOKEN], working_dir: secrets }
`).secrets,
  ).toEqual({
    a: { name: 'a', ...command, argv: ['op', 'read', 'op://x/y z'] },
    b: { name: 'b', ...command, argv: ['/home/user/demo/bin/show', '~/not-a-path'] },
    c: {
      name: 'c',
      ...command,
      argv: ['/home/user/bin/show'],
      timeout_ms: 5_000,
      max_size: 1_024,
      pass_env: ['TOKEN'],
      working_dir: '/home/user/demo/secrets',
    },
  })
})

test('ports: a number, short and long', () => {
  expect(
    project(
      'services: { s: { image: "x:1", ports: [8000, "127.0.0.1:1:2/udp", { target: "3", published: "4", host_ip: 0.0.0.0, protocol: udp }] } }\n',
    ).services['s']?.ports,
  ).toEqual([
    { host_ip: '127.0.0.1', host_port: 0, container_port: 8000, protocol: 'tcp' },
    { host_ip: '127.0.0.1', host_port: 1, container_port: 2, protocol: 'udp' },
    { host_ip: '0.0.0.0', host_port: 4, container_port: 3, protocol: 'udp' },
  ])
})

test('the name: -p, then the key, then the folder as Compose makes it fit', () => {
  expect(loadText('name: two\nagents: { a: }\n', {}, 'one').project?.name).toBe('one')
  expect(loadText('name: two\nagents: { a: }\n').project?.name).toBe('two')
  expect(loadText('agents: { a: }\n').project?.name).toBe('demo')
})

test('x- keys are ignored where they are allowed', () => {
  const text =
    'x-a: 1\nagents: { a: { x-b: [1] } }\nservices: { s: { image: "x:1", x-c: {} } }\npipelines: { p: { x-d: 1, jobs: { j: { agent: a, x-e: 2 } } } }\n'
  expect(Object.keys(project(text))).not.toContain('x-a')
})

test('pipelines: references, foreach, defaults', () => {
  const jobs = `
      plan: { agent: a, with: { path: "\${{ inputs.path }}", n: 1, cost: "$$5", literal: "$\${{ x }}", list: ["\${{ inputs.flag }}"] } }
      work: { agent: a, needs: plan, foreach: "\${{ needs.plan.result.parts }}", with: "\${{item.file-name}}", type: scan }
      more: { agent: a, needs: [plan], foreach: { in: [1, "\${{ needs.plan.result }}"], as: part }, with: { p: "\${{ part }}" } }`
  expect(
    project(
      `agents: { a: }\npipelines:\n  p:\n    inputs: { path: { default: . }, flag: { type: boolean, required: true }, n: }\n    jobs:${jobs}\n`,
    ).pipelines['p'],
  ).toEqual({
    name: 'p',
    inputs: {
      path: { type: 'string', default: '.', required: false },
      flag: { type: 'boolean', required: true },
      n: { type: 'string', required: false },
    },
    jobs: {
      plan: {
        id: 'plan',
        agent: 'a',
        needs: [],
        type: 'task',
        with: { path: { $ref: ['inputs', 'path'] }, n: 1, cost: '$5', literal: '${{ x }}', list: [{ $ref: ['inputs', 'flag'] }] },
        foreach: null,
      },
      work: {
        id: 'work',
        agent: 'a',
        needs: ['plan'],
        type: 'scan',
        with: { $ref: ['item', 'file-name'] },
        foreach: { in: { $ref: ['needs', 'plan', 'result', 'parts'] }, as: 'item' },
      },
      more: {
        id: 'more',
        agent: 'a',
        needs: ['plan'],
        type: 'task',
        with: { p: { $ref: ['part'] } },
        foreach: { in: [1, { $ref: ['needs', 'plan', 'result'] }], as: 'part' },
      },
    },
  })
})

test('places point into the file for problems that show later', () => {
  const { places } = loadText(
    'agents:\n  a:\n    tmpfs: /t\n    volumes: [./d:/d]\n    handler: { module: ./x.ts }\nsecrets:\n  k: { file: ./k }\nservices:\n  s: { image: "x:1", ports: ["80"] }\n',
  )
  const at = (path: string): string => `${places.get(path)?.line}:${places.get(path)?.column}`
  expect(
    [
      'agents.a',
      'agents.a.mounts.0',
      'agents.a.mounts.1',
      'agents.a.handler',
      'agents.a.handler.module',
      'secrets.k',
      'secrets.k.file',
      'services.s.ports.0',
      'services.s.image',
    ].map(at),
  ).toEqual(['2:3', '4:15', '3:12', '5:5', '5:24', '7:3', '7:14', '9:30', '9:15'])
})
