import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { stringify } from 'yaml'
import { configView } from '../../../spec/config.ts'
import { loadText, problems, project } from './loading.ts'

const again = (text: string): void => {
  const first = project(text, { HOME: '/home/user', WHO: 'me$you' })
  const printed = stringify(configView(first))
  const second = loadText(printed, {})
  expect(problems(second), printed).toEqual([])
  expect(second.project).toEqual(first)
}

const FULL = `
name: research
secrets: { serp: { environment: SERP }, key: { file: ./secrets/$$key }, op: { command: [op, read, "$$x", ./y], timeout: 5s, max_size: 1k, pass_env: [A] } }
volumes: { data: , old.data: {} }
telemetry: { endpoint: "http://collector:4318" }
broker: { url: "rediss://me%40x@redis.example.com/3", password: { secret: serp }, ca: { secret: key }, durability: none, concurrency: 50 }
artifacts: { max_size: 1m, types: ["text/*"], retention: 90d }
agents:
  lead:
    handler: { module: ./lead.ts }
    delegates_to: [worker, lead]
    uses: [memory]
    secrets: [serp, { source: key, target: k }, { source: op, target: /etc/a$$b, uid: 0, gid: 1000, mode: 0440 }]
    depends_on: { memory: { condition: service_healthy }, worker: { condition: service_started } }
    environment: { A: "$$HOME", B: "\${WHO}", C: "$\${{ x }}", D: "", E: "007" }
    user: 1000
    ready_timeout: 1500ms
    concurrency: { per_replica: 3, total: 10, key: "\${{ input.tenant.id }}", per_key: 2 }
    rate_limit: 10/1m
    retry: { attempts: 5, delay: 100ms, max_delay: 5m, backoff: fixed, jitter: 0, on: [timeout, "*"] }
    timeouts: { schedule_to_start: 1h, start_to_close: 1500ms, schedule_to_close: 2h, heartbeat: 1s }
    stall: { repeats: 0, steps: 100 }
    max_queue: 5k
    healthcheck: { test: echo $$X, interval: 90s, timeout: 1500ms, start_period: 0s, retries: 3 }
  worker:
    replicas: 0
    concurrency: 4
    stall: false
    retry: { on: [] }
    image: my/agent:1.2
    handler: exec
    command: ["sh", "-c", "echo $$1 'a b'"]
    entrypoint: []
    volumes: [data:/data, "./in:/in:ro"]
    tmpfs: ["/cache:size=10m", /workspace]
    cpus: 0.25
    mem_limit: 100m
    pids_limit: 10
    working_dir: /workspace
    labels: { team: "a$$b" }
    healthcheck: { disable: true }
  own: { image: "own:1" }
  loose:
    cap_add: [cap_net_raw]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:false", "seccomp:./p$$q.json", apparmor=docker-default]
    read_only: false
    ulimits: { nofile: { soft: 1, hard: -1 }, core: 5 }
    shm_size: 128m
    init: false
    runtime: runsc
    sysctls: [net.ipv4.tcp_syncookies=1]
services:
  memory: { image: "chroma:0.5", command: "", healthcheck: { test: [CMD, x] }, ports: ["8000", "0.0.0.0:9000:9000/udp", "[::1]:7:7"], user: redis }
pipelines:
  report:
    inputs: { path: { default: "." }, n: { type: number, default: 3, required: true }, o: { type: object, default: { a: [null, "$$x"] } }, nil: { default: } }
    jobs:
      plan: { agent: lead, with: { path: "\${{ inputs.path }}", price: "$$5", lit: "$\${{ y }}", deep: [{ n: "\${{ inputs.n }}", t: true, z: null }] } }
      work: { agent: worker, needs: [plan], foreach: { in: "\${{ needs.plan.result.parts.0 }}", as: part }, with: "\${{ part }}" }
      some: { agent: worker, foreach: ["a", 1, "\${{ inputs.o }}"], with: [ "\${{ item }}" ], type: scan }
      none: { agent: worker, with: }
`

test('the printed file loads as an equal project', () => again(FULL))

test('the printed file of a printed file is the same text', () => {
  const once = stringify(configView(project(FULL, { HOME: '/', WHO: 'x' })))
  expect(stringify(configView(project(once, {})))).toBe(once)
})

const words = fc
  .oneof(
    fc.string({ maxLength: 12 }),
    fc.constantFrom(
      '$',
      '$$',
      '${A}',
      '${{ a }}',
      'true',
      '1',
      '~',
      '- a',
      'a: b',
      '#',
      '"',
      "'",
      '\n',
      ' ',
      '日本',
      '{secret:x}',
      'null',
      '*a',
      '&a',
      '!x',
      '<<',
      '0x10',
      '1e3',
    ),
  )
  .map((text) => text.replaceAll('\0', ''))
const quoted = (text: string): string => JSON.stringify(text.replaceAll('$', '$$$$'))

test('whatever stands in strings survives', () => {
  fc.assert(
    fc.property(words, words, words, (a, b, c) => {
      again(
        `agents: { a: { environment: { X: ${quoted(a)} }, command: [${quoted(b)}], labels: { l: ${quoted(c)} } } }\npipelines: { p: { inputs: { i: { default: ${quoted(a)} } }, jobs: { j: { agent: a, with: { ${JSON.stringify(`k${b}`)}: ${quoted(c)} } } } } }\n`,
      )
    }),
    { seed: 3, numRuns: 300 },
  )
})

test('the examples of the project survive too', () => {
  const root = new URL('../../../examples/', import.meta.url)
  for (const entry of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
    if (entry.endsWith('agents.yaml') && !entry.includes('node_modules')) again(readFileSync(new URL(entry, root), 'utf8'))
  }
})
