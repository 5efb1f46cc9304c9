import { Ajv2020 } from 'ajv/dist/2020.js'
import { expect, test } from 'vitest'
import schema from '../../../agentfile.schema.json' with { type: 'json' }
import { DEFAULT_ARTIFACTS, DEFAULT_BROKER, DEFAULT_WORK, DEFAULTS } from '../../../spec/model.ts'
import { loadText, problems } from './loading.ts'

type Schema = { readonly [key: string]: unknown }

/** Every `properties` of the schema, with the names that lead there. */
function* keys(node: unknown, path: string): Generator<readonly [string, Schema]> {
  if (typeof node !== 'object' || node === null) return
  for (const [key, value] of Object.entries(node as Schema)) {
    if (key === 'examples' || key === 'default') continue
    if (key === 'properties')
      for (const [name, property] of Object.entries(value as Schema)) yield [`${path}.${name}`, resolve(property as Schema)]
    yield* keys(value, `${path}.${key}`)
  }
}

function resolve(property: Schema): Schema {
  const name = /^#\/\$defs\/(.+)$/.exec(String(property['$ref'] ?? ''))?.[1]
  return name === undefined ? property : ((schema.$defs as unknown as { [name: string]: Schema })[name] ?? {})
}

test('the schema is one: draft 2020-12, in strict mode', () => {
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true })
  ajv.addVocabulary(['x-expected', 'x-later', 'x-later-string', 'x-never', 'x-instead', 'x-hidden'])
  expect(ajv.validateSchema(schema), JSON.stringify(ajv.errors)).toBe(true)
  expect(() => ajv.compile(schema)).not.toThrow()
})

test('every key has a title, a description that is a sentence, and examples', () => {
  const all = [...keys(schema, '')]
  expect(all.length).toBeGreaterThan(80)
  for (const [path, property] of all) {
    expect(property['title'], path).toBeTypeOf('string')
    expect(property['description'], path).toMatch(/^(.{10,}\.|.*\.)$/s)
    expect((property['examples'] as unknown[] | undefined)?.length, path).toBeGreaterThan(0)
  }
})

test('the descriptions name the defaults of the model', () => {
  const text = (name: keyof typeof schema.$defs): string => String((schema.$defs[name] as Schema)['description'])
  const agent = schema.$defs.agent.properties
  const inMi = (bytes: number): string => (bytes % 2 ** 30 === 0 ? `${bytes / 2 ** 30}g` : `${bytes / 2 ** 20}m`)
  expect(text('mem_limit')).toContain(`${inMi(DEFAULTS.agent.mem_limit)} for an agent, ${inMi(DEFAULTS.service.mem_limit)} for a service`)
  expect(text('pids_limit')).toContain(`${DEFAULTS.agent.pids_limit} for an agent, ${DEFAULTS.service.pids_limit} for a service`)
  expect(text('cpus')).toContain(`Default ${DEFAULTS.agent.cpus}.`)
  expect(text('user')).toContain(DEFAULTS.agent.user)
  expect(text('tmpfs')).toContain(`/tmp (${inMi(DEFAULTS.tmpfs.tmp)}) and /workspace (${inMi(DEFAULTS.tmpfs.workspace)})`)
  expect(text('replicas')).toContain(`Default ${DEFAULTS.agent.replicas};`)
  expect(agent.concurrency.description).toContain(`Default ${DEFAULTS.agent.concurrency}.`)
  const { retry, stall, max_queue } = DEFAULT_WORK
  expect(agent.retry.properties.attempts.description).toContain(`Default ${retry.attempts}.`)
  expect(agent.retry.properties.delay.description).toContain(`Default ${retry.delay_ms / 1000}s.`)
  expect(agent.retry.properties.max_delay.description).toContain(`Default ${retry.max_delay_ms / 1000}s.`)
  expect(agent.retry.properties.backoff.description).toContain(`Default ${retry.backoff}.`)
  expect(agent.retry.properties.jitter.description).toContain(`Default ${retry.jitter}.`)
  expect(agent.stall.properties.repeats.description).toContain(`Default ${stall.repeats}.`)
  expect(agent.max_queue.description).toContain(`Default ${max_queue / 1000}k.`)
  const artifacts = schema.properties.artifacts.properties
  expect(artifacts.max_size.description).toContain(`Default ${inMi(DEFAULT_ARTIFACTS.max_size)}.`)
  expect(artifacts.max_run.description).toContain(`Default ${inMi(DEFAULT_ARTIFACTS.max_run)}.`)
  expect(artifacts.max_total.description).toContain(`Default ${inMi(DEFAULT_ARTIFACTS.max_total)}.`)
  expect(artifacts.retention.description).toContain(`Default ${DEFAULT_ARTIFACTS.retention_ms / 86_400_000}d.`)
  expect(schema.properties.broker.properties.durability.description).toContain(`Default ${DEFAULT_BROKER.durability}.`)
  expect(agent.ready_timeout.description).toContain(`Default ${DEFAULTS.agent.ready_timeout_ms / 1000}s.`)
})

test.each((schema.$defs.agent['x-later'] as string[]).map((key) => [key]))('%s on an agent is refused by name', (key) => {
  expect(problems(loadText(`agents: { a: { ${key}: x } }\n`))).toEqual([`1:16 AG1006 the key "${key}" is not supported yet in agent "a"`])
})

test('what is not built yet and what is built have nothing in common', () => {
  for (const part of [schema, schema.$defs.agent, schema.$defs.service, schema.$defs.pipeline, schema.$defs.job]) {
    const later = new Set<string>(part['x-later'])
    expect(Object.keys(part.properties).filter((key) => later.has(key))).toEqual([])
  }
})

test('one problem per mistake, whatever ajv says about it', () => {
  for (const value of ['5', '[1]', 'true', '"x"']) {
    expect(problems(loadText(`agents: { a: { healthcheck: ${value} } }\n`)), value).toHaveLength(1)
    expect(problems(loadText(`agents: { a: { volumes: [${value}] } }\n`)).length, value).toBeGreaterThan(0)
  }
})
