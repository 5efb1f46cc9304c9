import { readFileSync } from 'node:fs'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { openapi } from '../../../engine/gateway/agent/openapi.ts'
import { ROUTES } from '../../../engine/gateway/agent/routes.ts'
import { type Client, harness, type Harness, type Reply } from './harness.ts'
import { raw, take } from './storing.ts'

let h: Harness
const clients: Client[] = []
beforeAll(async () => {
  h = await harness()
  h.configure({ a: { concurrency: 4, delegates_to: ['a'] } })
  await h.start()
})
afterEach(() => {
  for (const client of clients.splice(0)) client.die()
})
afterAll(() => h.stop())

const document = openapi()
const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false })
ajv.addSchema({ $id: 'agent', components: document.components })

interface Operation {
  readonly requestBody?: { readonly content: { readonly [type: string]: { readonly schema?: { readonly $ref?: string } } } }
  readonly responses: {
    readonly [status: string]: { readonly content: { readonly [type: string]: { readonly schema?: { readonly $ref?: string } } } }
  }
}
const operation = (method: string, path: string): Operation => document.paths[path]?.[method.toLowerCase()] as Operation
/** What is wrong with a value by the schema of that name. */
function wrong(
  content: { readonly [type: string]: { readonly schema?: { readonly $ref?: string } } } | undefined,
  value: unknown,
): string | null {
  const $ref = content?.['application/json']?.schema?.$ref
  if ($ref === undefined) return content === undefined ? 'not in the document' : null
  const validate = ajv.compile({ $ref: `agent${$ref}` })
  return validate(value) ? null : ajv.errorsText(validate.errors)
}

/** Sends it, and holds request and answer against the document. */
const seen = new Set<string>()
async function check(
  client: Client,
  method: string,
  path: string,
  body?: unknown,
  template: string = path.replace(/\?.*/, ''),
): Promise<Reply> {
  const reply = await client.call(method, path, body)
  const { requestBody, responses } = operation(method, template)
  seen.add(`${method} ${template}`)
  if (reply.status === 200 && body !== undefined) expect([path, wrong(requestBody?.content, body)]).toEqual([path, null])
  expect([path, reply.status, wrong(responses[String(reply.status)]?.content, reply.json)]).toEqual([path, reply.status, null])
  return reply
}

test('the document is a gateway’s own, of version 3.1, and the one in docs/', async () => {
  const served = await raw(h, 'a')('GET', '/v1/openapi.json', undefined, { authorization: '' })
  expect(served.json).toEqual(JSON.parse(JSON.stringify(document)))
  expect(served.json).toEqual(JSON.parse(readFileSync('docs/openapi-agent.json', 'utf8')))
  expect(document.openapi).toBe('3.1.0')
  for (const schema of Object.keys(document.components.schemas))
    expect(() => ajv.compile({ $ref: `agent#/components/schemas/${schema}` }), schema).not.toThrow()
  const ids = Object.values(document.paths).flatMap((it) => Object.values(it).map((op) => (op as { operationId: string }).operationId))
  expect(new Set(ids).size).toBe(ids.length)
})

test('real requests and answers of every route are as the document says', async () => {
  await h.submit({ agent: 'a', type: 'task', tasks: [{ n: 1 }, { n: 2 }, { n: 3 }] })
  const a = h.agent('a')
  clients.push(a)
  const first = await check(a, 'POST', '/v1/lease', { want: 1, wait_ms: 5_000, beat: [], done: [] })
  const lease = first.json.tasks[0].lease as string
  const query = `lease=${encodeURIComponent(lease)}`
  await check(a, 'POST', '/v1/heartbeat', { lease })
  await check(a, 'POST', '/v1/progress', {
    lease,
    message: 'x',
    percent: 5,
    data: [1],
    step: { name: 's', tool: 't', args_hash: 'h', tokens: 3, milestone: 'm' },
  })
  await check(a, 'POST', '/v1/logs', { lease, lines: [{ stream: 'stdout', text: '' }] })
  const { json: child } = await check(a, 'POST', '/v1/delegate', { lease, key: 'k', agent: 'a', input: null })
  await check(a, 'POST', '/v1/delegate', { lease, tasks: [{ key: 'k2', agent: 'a', type: 't', input: {} }] })
  await check(a, 'POST', '/v1/await', { lease, tasks: [child.task], wait_ms: 1 })
  await check(a, 'GET', `/v1/tasks/${child.task}?wait_ms=1`, undefined, '/v1/tasks/{ID}')
  const { json: asked } = await check(a, 'POST', '/v1/approvals', { lease, key: 'k', message: 'm', data: { x: 1 } })
  await check(a, 'GET', `/v1/approvals/${asked.id}`, undefined, '/v1/approvals/{ID}')
  await h.control('POST', `/v1/approvals/${asked.id}`, { decision: 'approve', comment: 'yes' })
  expect((await check(a, 'GET', `/v1/approvals/${asked.id}`, undefined, '/v1/approvals/{ID}')).json.comment).toBe('yes')
  await check(a, 'POST', '/v1/journal', { lease, entries: [{ key: 'a#1', kind: 'step', value: null }] })
  await check(a, 'GET', `/v1/journal?${query}`)
  const stored = await check(a, 'PUT', `/v1/artifacts/x?${query}`, 'bytes', '/v1/artifacts/{NAME}')
  await check(a, 'GET', `/v1/artifacts/${stored.json.digest}?${query}`, undefined, '/v1/artifacts/{NAME}')
  await check(a, 'POST', '/v1/traces', { resourceSpans: [] })
  // Refusals are of the document too.
  for (const [method, path, body, template] of [
    ['POST', '/v1/heartbeat', { lease: 'none' }],
    ['POST', '/v1/journal', { lease: 'none', entries: [] }],
    ['GET', '/v1/journal?lease=none', undefined],
    ['GET', '/v1/tasks/none', undefined, '/v1/tasks/{ID}'],
    ['GET', '/v1/approvals/none', undefined, '/v1/approvals/{ID}'],
    ['POST', '/v1/approvals', { lease, key: '', message: '' }],
    ['POST', '/v1/delegate', { lease, key: 'k', agent: 'nobody', input: 1 }],
    ['POST', '/v1/await', { lease, tasks: ['none'] }],
    ['POST', '/v1/lease', { want: -1 }],
    ['PUT', '/v1/artifacts/.x', 'x', '/v1/artifacts/{NAME}'],
    ['GET', `/v1/artifacts/none?${query}`, undefined, '/v1/artifacts/{NAME}'],
  ] as const) {
    const reply = await check(a, method, path, body, template)
    expect([path, reply.status >= 400]).toEqual([path, true])
  }
  // The artifact of a child is in its view; a failure that waits; a task with a journal.
  const again = await check(a, 'POST', '/v1/fail', { lease, error: { code: 'x', message: 'y', retryable: true, after_ms: 1 } })
  expect(again.status).toBe(200)
  for (let found = false; !found; ) {
    const task = await take(a)
    found = task.journal === 1
    await check(a, 'POST', '/v1/complete', { lease: task.lease, result: null })
  }
  await check(a, 'POST', '/v1/lease', { want: 0, done: [{ lease, status: 'completed', result: null }] })
  expect([...seen].toSorted()).toEqual(ROUTES.map(({ method, path }) => `${method} ${path}`).toSorted())
})
