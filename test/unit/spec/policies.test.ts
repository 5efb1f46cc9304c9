import { expect, test } from 'vitest'
import { brokerAddress } from '../../../spec/broker.ts'
import { DEFAULT_ARTIFACTS, DEFAULT_WORK, type WorkPolicy } from '../../../spec/model.ts'
import { loadText, problems, project } from './loading.ts'

const work = (text: string): WorkPolicy | undefined => project(`agents: { a: { ${text} } }\n`).agents['a']?.work
const said = (text: string): readonly string[] => problems(loadText(text))
const refused = (text: string): readonly string[] => said(`agents: { a: { ${text} } }\n`).map((line) => line.replace(/^\S+ /, ''))

test('concurrency as a number or with more limits', () => {
  const plain = project('agents: { a: { concurrency: 4 } }\n').agents['a']
  expect([plain?.concurrency, plain?.work]).toEqual([4, DEFAULT_WORK])
  const full = project('agents: { a: { concurrency: { per_replica: 2, total: 10, key: "${{ input.tenant.id }}", per_key: 3 } } }\n').agents[
    'a'
  ]
  expect([full?.concurrency, full?.work]).toEqual([2, { ...DEFAULT_WORK, total: 10, key: ['input', 'tenant', 'id'], per_key: 3 }])
  expect(work('concurrency: { key: "${{ run }}" }')).toEqual({ ...DEFAULT_WORK, key: ['run'] })
  expect(project('agents: { a: { concurrency: { total: 3 } } }\n').agents['a']?.concurrency).toBe(1)
})

test('a key is a path into the input, or the run, and nothing else', () => {
  for (const key of ['${{ inputs.x }}', '${{ input }}', '${{ run.id }}', 'tenant', 'a ${{ input.x }}', '${{ needs.a.result }}'])
    expect(refused(`concurrency: { key: "${key}" }`), key).toEqual([
      `AG2004 expected \${{ input.KEY }} or \${{ run }} as the key, got ${JSON.stringify(key)}`,
    ])
  expect(refused('concurrency: { per_key: 2 }')).toEqual(['AG1007 per_key has no key to count by'])
  // Elsewhere in an agent it means nothing.
  expect(refused('working_dir: "${{ input.x }}"')[0]).toContain('AG2004 a ${{ }} reference has a value only in')
})

test.each([
  ['10/1m', { max: 10, per_ms: 60_000 }],
  ['5/s', { max: 5, per_ms: 1_000 }],
  ['"100 / 250ms"', { max: 100, per_ms: 250 }],
  ['{ max: 3, per: 1h }', { max: 3, per_ms: 3_600_000 }],
])('rate_limit: %s', (text, rate) => {
  expect(work(`rate_limit: ${text}`)?.rate).toEqual(rate)
})

test.each(['0/1m', '10/0s', '10/1', '-1/m', 'true', '10'])('rate_limit: %s is refused once', (text) => {
  expect(refused(`rate_limit: ${text}`)).toHaveLength(1)
})

test('retry: what is not said is the default', () => {
  expect(work('retry: { attempts: 7 }')?.retry).toEqual({ ...DEFAULT_WORK.retry, attempts: 7 })
  expect(work('retry: { delay: 0s, backoff: fixed, jitter: 0, on: ["*"] }')?.retry).toEqual({
    ...DEFAULT_WORK.retry,
    delay_ms: 0,
    backoff: 'fixed',
    jitter: 0,
    on: ['*'],
  })
  // A first delay above the default's longest is meant.
  expect(work('retry: { delay: 5m }')?.retry).toMatchObject({ delay_ms: 300_000, max_delay_ms: 300_000 })
  expect(refused('retry: { delay: 5m, max_delay: 1m }')).toEqual(['AG1005 the longest delay of a retry is below its first one'])
})

test('timeouts that contradict each other are refused', () => {
  expect(work('timeouts: { start_to_close: 5m, heartbeat: 30s }')?.timeouts).toEqual({
    schedule_to_start_ms: null,
    start_to_close_ms: 300_000,
    schedule_to_close_ms: null,
    heartbeat_ms: 30_000,
  })
  expect(refused('timeouts: { start_to_close: 5m, heartbeat: 6m }')).toEqual([
    'AG1005 heartbeat is longer than start_to_close: it would never be reached',
  ])
  expect(refused('timeouts: { heartbeat: 0s }')).toEqual(['AG1005 expected a duration of at least 1ms for heartbeat, got "0s"'])
})

test('stall: a mapping, or false', () => {
  expect(work('stall: false')?.stall).toEqual({ repeats: null, steps: null, tokens: null })
  expect(work('stall: { tokens: 500000 }')?.stall).toEqual({ repeats: 10, steps: null, tokens: 500_000 })
  expect(work('stall: { repeats: 0 }')?.stall).toEqual({ repeats: null, steps: null, tokens: null })
  expect(work('stall: true')?.stall).toEqual(DEFAULT_WORK.stall)
})

test('max_queue counts in thousands', () => {
  expect(work('max_queue: 100k')?.max_queue).toBe(100_000)
  expect(work('max_queue: 250')?.max_queue).toBe(250)
  expect(work('max_queue: 1.5M')?.max_queue).toBe(1_500_000)
  expect(refused('max_queue: 0.5')).toHaveLength(1)
  expect(refused('max_queue: 11m')).toHaveLength(1)
})

test('a misspelt key names the right one', () => {
  for (const [key, meant] of [
    ['rate_limits: 1/s', 'rate_limit'],
    ['retry: { attempt: 2 }', 'attempts'],
    ['timeouts: { start_to_end: 1s }', 'start_to_close'],
    ['stall: { repeat: 1 }', 'repeats'],
    ['max_queu: 1', 'max_queue'],
  ] as const)
    expect(loadText(`agents: { a: { ${key} } }\n`).diagnostics[0]?.help, key).toContain(meant)
})

test('variables stand for any of them', () => {
  const text = `agents: { a: { concurrency: { total: $N }, rate_limit: "$N/1m", retry: { jitter: $J }, max_queue: $N, stall: { steps: $N } } }\n`
  expect(project(text, { N: '12', J: '0.25' }).agents['a']?.work).toEqual({
    ...DEFAULT_WORK,
    total: 12,
    rate: { max: 12, per_ms: 60_000 },
    retry: { ...DEFAULT_WORK.retry, jitter: 0.25 },
    stall: { ...DEFAULT_WORK.stall, steps: 12 },
    max_queue: 12,
  })
})

const broker = (text: string): string => `agents: { a: {} }\nsecrets: { p: { file: ./p } }\nbroker: ${text}\n`

test('addresses of brokers become one form', () => {
  for (const [text, url] of [
    ['redis://redis', 'redis://redis:6379/0'],
    ['REDISS://me@Redis.Example.com:7000/2', 'rediss://me@redis.example.com:7000/2'],
    ['redis://[2001:db8::1]:6380/', 'redis://[2001:db8::1]:6380/0'],
    ['redis://a%40b@h/1', 'redis://a%40b@h:6379/1'],
  ] as const) {
    expect(project(broker(`{ url: "${text}" }`)).broker.url, text).toBe(url)
    expect(brokerAddress(url)).not.toBeNull()
  }
  expect(brokerAddress('rediss://a%40b@[2001:db8::1]:7000/3')).toEqual({
    tls: true,
    username: 'a@b',
    host: '2001:db8::1',
    port: 7000,
    db: 3,
  })
})

test.each([
  ['redis://me:hunter2hunter2@h', 'a password in the address would stand in the record of the project'],
  ['http://h:6379', 'a broker at http:// is not supported'],
  ['redis+sentinel://h', 'a broker at redis+sentinel:// is not supported'],
  ['redis-host:6379', 'expected the address of a Redis'],
  ['redis://h/abc', 'expected the number of a database'],
  ['redis://h?family=6', 'options in the address are not supported'],
  ['redis://localhost:6379', 'would be the egress container itself'],
  ['redis://127.0.0.1', 'would be the egress container itself'],
])('the address %s is refused without being shown', (url, why) => {
  const [first, ...others] = said(broker(`{ url: "${url}" }`))
  expect(first).toContain(why)
  expect(first).not.toContain('hunter2')
  expect(others).toEqual([])
})

test('password and ca are names of declared secrets, for a broker of your own', () => {
  const url = 'url: "rediss://h"'
  expect(project(broker(`{ ${url}, password: { secret: p }, ca: { secret: p } }`)).broker).toMatchObject({ password: 'p', ca: 'p' })
  expect(said(broker(`{ ${url}, password: { secret: q } }`))[0]).toContain('names the secret "q", which is not declared')
  const plain = said(broker(`{ ${url}, password: hunter2hunter2 }`))
  expect(plain).toEqual([expect.stringContaining('AG1005 expected a mapping with secret, like {secret: NAME} for broker.password')])
  expect(plain.join()).not.toContain('hunter2')
  expect(said(broker('{ password: { secret: p } }'))[0]).toContain('is made by agentctl')
  expect(said(broker('{ url: "redis://h", ca: { secret: p } }'))[0]).toContain('a redis:// address has none')
})

test('artifacts: sizes that fit into each other, types, and a time that may be long', () => {
  const of = (text: string) => project(`agents: { a: {} }\nartifacts: ${text}\n`).artifacts
  expect(of('{ max_size: 1m, types: [Text/*, application/json], retention: 90d }')).toEqual({
    ...DEFAULT_ARTIFACTS,
    max_size: 2 ** 20,
    types: ['text/*', 'application/json'],
    retention_ms: 90 * 86_400_000,
  })
  expect(said('agents: { a: {} }\nartifacts: { max_size: 2g }\n')[0]).toContain('max_size of artifacts is above max_run')
  expect(said('agents: { a: {} }\nartifacts: { types: [text] }\n')[0]).toContain('expected a media type')
  expect(said('agents: { a: {} }\nartifacts: { types: [] }\n')[0]).toContain('expected a list of at least one media type')
})
