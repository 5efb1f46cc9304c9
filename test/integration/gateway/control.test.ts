/** The control API as an application meets it: every answer fits the document that describes it, and what is wrong is refused by name. */
import { Ajv2020 } from 'ajv/dist/2020.js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openapi } from '../../../engine/gateway/control/openapi.ts'
import { ROUTES } from '../../../engine/gateway/control/routes.ts'
import { type AnyJson, type Harness, harness, type Reply, until } from './harness.ts'

let gateway: Harness
const document: AnyJson = openapi(ROUTES)

beforeAll(async () => {
  gateway = await harness()
  gateway.configure(
    { worker: { concurrency: 4 }, idle: {}, late: { concurrency: 3 }, parent: { delegates_to: ['idle'] } },
    {
      chain: {
        inputs: { text: { type: 'string', required: true } },
        jobs: {
          first: { agent: 'worker', with: { $ref: ['inputs', 'text'] } },
          second: { agent: 'idle', needs: ['first'] },
        },
      },
      held: { jobs: { first: { agent: 'idle' }, second: { agent: 'idle', needs: ['first'] } } },
      echo: {
        inputs: { text: { type: 'string', default: 'x', required: false } },
        jobs: { say: { agent: 'worker', with: { $ref: ['inputs', 'text'] } } },
      },
    },
  )
  await gateway.start()
  await gateway.healthy()
  gateway.agent('worker').run(4, async ({ input }) => {
    if (input === 'bad') throw Object.assign(new Error('it was bad'), { code: 'bad' })
    return { echo: input }
  })
}, 60_000)
afterAll(() => gateway.stop())

const ajv = new Ajv2020({ strict: false, formats: { 'date-time': true } })
/** Fields that the document does not know are found too. */
const closed = (schema: AnyJson): AnyJson => {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== 'object' || schema === null) return schema
  const inner = Object.fromEntries(Object.entries(schema).map(([key, it]) => [key, closed(it)]))
  return schema.properties !== undefined && schema.additionalProperties === undefined ? { ...inner, additionalProperties: false } : inner
}
const components = closed(document.components)
/** The reply, after its body was compared with the document. */
async function call(method: 'GET' | 'POST', path: string, body?: unknown): Promise<Reply> {
  const reply = await gateway.control(method, path, body)
  const [name] = path.split('?')
  const route = ROUTES.find((it) => it.method === method && new RegExp(`^${it.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(name ?? ''))
  if (route === undefined) return reply
  const schema = document.paths[route.path][method.toLowerCase()].responses[reply.status]?.content['application/json'].schema
  expect(schema, `${method} ${path} answered ${reply.status}, which its description does not know`).toBeDefined()
  const valid = ajv.compile({ ...closed(schema), components })
  valid(reply.json)
  expect(valid.errors, `${method} ${path} → ${reply.body.slice(0, 500)}`).toBeNull()
  return reply
}
const submit = async (body: unknown): Promise<string> => {
  const reply = await call('POST', '/v1/runs', body)
  expect(reply.status, reply.body).toBe(200)
  return reply.json.run
}

const definition = async (run: string): Promise<AnyJson> => {
  const [[text] = []] = await gateway.broker().readRunFields([run], ['def'])
  return JSON.parse(text as string)
}

test('the document has every route, once, with the answers of each', async () => {
  const served = await gateway.control('GET', '/v1/openapi.json')
  expect(served.json).toEqual(JSON.parse(JSON.stringify(document)))
  const described = Object.entries<AnyJson>(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((it) => `${it.toUpperCase()} ${path}`),
  )
  expect(described.sort()).toEqual(ROUTES.map((it) => `${it.method} ${it.path}`).sort())
  expect(new Set(ROUTES.map((it) => it.id)).size).toBe(ROUTES.length)
  const refs = JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)
  for (const [, name = ''] of refs) expect(document.components.schemas, name).toHaveProperty(name)
})

test('what is sent is checked: an unknown field, a wrong value and a query that is none are refused by name', async () => {
  const cases: readonly (readonly [body: unknown, message: string])[] = [
    [{ agent: 'worker', tasks: [1], prio: 1 }, 'the request has no field "prio"'],
    [{ agent: 'worker', tasks: [1], priority: 10 }, '"priority" must be a whole number from -9 to 9, got 10'],
    [{ agent: 'worker', tasks: [1], priority: '1' }, '"priority" must be a whole number from -9 to 9, got "1"'],
    [{ agent: 'worker', tasks: [1], delay_ms: -1 }, '"delay_ms" must be'],
    [{ agent: 'worker', tasks: [1], dedup_key: '' }, '"dedup_key" must have 1 to 256 characters'],
    [{ agent: 'worker', tasks: [1], dedup_ttl_ms: 5 }, '"dedup_ttl_ms" goes with "dedup_key"'],
    [{ agent: 'worker', tasks: [1], timeouts: { heartbeat: 1 } }, '"timeouts" has no field "heartbeat"'],
    [{ agent: 'worker', tasks: [1], id: 'run_1' }, '"id" must be The caller’s own id'],
    [{ agent: 'worker', tasks: [1], inputs: {} }, '"inputs" goes with "pipeline"'],
    [{ pipeline: 'echo', inputs: {}, tasks: [1] }, '"tasks" goes with "agent"'],
    [{ pipeline: 'echo', agent: 'worker' }, 'give either "pipeline"'],
    [{ agent: 'worker' }, '"tasks" must be a list'],
    [{ agent: 'worker', tasks: [JSON.parse('['.repeat(200) + ']'.repeat(200))] }, '"tasks"[0] nests more than 128 levels deep'],
    [[], 'the body must be a JSON object'],
  ]
  for (const [body, message] of cases) {
    const reply = await call('POST', '/v1/runs', body)
    expect([reply.status, reply.json.error.message], message).toEqual([400, expect.stringContaining(message)])
  }
  for (const query of ['statu=failed', 'status=nope', 'limit=0', 'limit=1001', 'limit=x', 'before=yesterday'])
    expect((await call('GET', `/v1/runs?${query}`)).status, query).toBe(400)
  expect((await gateway.control('PUT', '/v1/runs')).status).toBe(405)
  expect((await gateway.control('GET', '/v1/nothing')).status).toBe(404)
  expect((await call('POST', '/v1/runs/run_x/cancel', { force: true })).status).toBe(400)
})

test('a run is listed in pages, by status and by agent', async () => {
  const ids: string[] = []
  for (const text of ['a', 'b', 'c']) ids.push(await submit({ pipeline: 'echo', inputs: { text } }))
  const bad = await submit({ agent: 'worker', tasks: ['bad'] })
  for (const id of [...ids, bad]) await gateway.ended(id)
  const seen: string[] = []
  for (let before = ''; ; ) {
    const { json } = await call('GET', `/v1/runs?limit=2${before}`)
    expect(json.runs.length).toBeLessThanOrEqual(2)
    seen.push(...json.runs.map((it: AnyJson) => it.run))
    if (json.next === null) break
    before = `&before=${json.next}`
  }
  expect(seen.slice(0, 4)).toEqual([bad, ...ids.toReversed()])
  expect(new Set(seen).size).toBe(seen.length)
  expect((await call('GET', '/v1/runs?status=failed')).json.runs.map((it: AnyJson) => it.run)).toEqual([bad])
  expect((await call('GET', '/v1/runs?agent=idle')).json.runs).toEqual([])
  expect((await call('GET', `/v1/runs?agent=worker&limit=1&before=${ids[1]}`)).json.runs[0].run).toBe(ids[0])
})

test('a run tells when, how long and how large', async () => {
  const run = await submit({ pipeline: 'echo', inputs: { text: 'hello' } })
  await gateway.ended(run)
  const { json } = await call('GET', `/v1/runs/${run}`)
  const [job] = json.jobs
  expect(job).toMatchObject({ tasks: 1, times: { input_bytes: 7, result_bytes: '{"echo":"hello"}'.length } })
  expect(Date.parse(job.times.created_at)).toBeLessThanOrEqual(Date.parse(job.times.started_at))
  expect(Date.parse(job.times.started_at)).toBeLessThanOrEqual(Date.parse(job.times.ended_at))
  expect(Date.parse(json.created_at)).toBeLessThanOrEqual(Date.parse(json.ended_at))
  const task = await call('GET', `/v1/tasks/${run}.say.0`)
  expect(task.json.times).toEqual(job.times)
})

test('a retry of plain tasks repeats those that did not complete; --all repeats every one; a pipeline runs again with its inputs', async () => {
  const plain = await submit({ agent: 'worker', type: 'x', tasks: ['a', 'bad', 'b'] })
  await gateway.ended(plain)
  const some = await call('POST', `/v1/runs/${plain}/retry`, {})
  const again = await gateway.ended(some.json.run)
  expect([again.jobs.length, again.jobs[0]?.error?.code, again.retry_of]).toEqual([1, 'bad', plain])
  const all = await gateway.ended((await call('POST', `/v1/runs/${plain}/retry`, { all: true })).json.run)
  expect(all.jobs.map((it) => it.result)).toEqual([{ echo: 'a' }, null, { echo: 'b' }])
  const task = await call('GET', `/v1/tasks/${all.run}.task.0`)
  expect(task.json.type).toBe('x')

  const options = { priority: 4, timeouts: { start_to_close_ms: 60_000 } }
  for (const work of [
    { agent: 'worker', type: 'x', tasks: ['bad'] },
    { pipeline: 'echo', inputs: { text: 'bad' } },
  ]) {
    const run = await submit({ ...work, ...options })
    await gateway.ended(run)
    const { json } = await call('POST', `/v1/runs/${run}/retry`, {})
    expect(await definition(json.run)).toMatchObject({ ...options, retry_of: run })
    await gateway.ended(json.run)
    if (work.agent === undefined) continue
    const letter = await call('POST', `/v1/dlq/${run}.task.0/retry`, {})
    expect(await definition(letter.json.run)).toMatchObject({ ...options, retry_of: run })
  }

  const echo = await submit({ pipeline: 'echo', inputs: { text: 'twice' } })
  await gateway.ended(echo)
  const id = echo.replace(/.{4}$/, 'ZZZZ')
  const first = await call('POST', `/v1/runs/${echo}/retry`, { id })
  const second = await call('POST', `/v1/runs/${echo}/retry`, { id })
  expect([first.json.run, second.json.run]).toEqual([id, id])
  expect((await gateway.ended(id)).result).toEqual({ say: { echo: 'twice' } })

  const good = await submit({ agent: 'worker', tasks: ['fine'] })
  await gateway.ended(good)
  expect((await call('POST', `/v1/runs/${good}/retry`, {})).status).toBe(409)
  const open = await submit({ agent: 'idle', tasks: [1] })
  expect((await call('POST', `/v1/runs/${open}/retry`, {})).status).toBe(409)
  await call('POST', `/v1/runs/${open}/cancel`, {})
  expect((await call('POST', '/v1/runs/run_01J00000000000000000000000/retry', {})).status).toBe(404)
})

test('a run that was cancelled can be repeated, with the inputs of tasks that had not begun', async () => {
  const run = await submit({ agent: 'late', type: 'odd', tasks: [{ n: 1 }, null, 'three'] })
  await call('POST', `/v1/runs/${run}/cancel`, {})
  const again = await call('POST', `/v1/runs/${run}/retry`, {})
  expect(again.status, again.body).toBe(200)
  const { tasks } = await gateway.agent('late').lease(3)
  expect(tasks.map((it) => it.input)).toEqual([{ n: 1 }, null, 'three'])
  expect(tasks.map((it) => it.type)).toEqual(['odd', 'odd', 'odd'])
  await call('POST', `/v1/runs/${again.json.run}/cancel`, {})
})

test('explain says why a task waits, runs or has ended', async () => {
  const codes = async (task: string): Promise<readonly string[]> => {
    const { status, json, body } = await call('GET', `/v1/tasks/${task}/explain`)
    expect(status, body).toBe(200)
    return json.reasons.map((it: AnyJson) => it.code)
  }
  const run = await submit({ pipeline: 'chain', inputs: { text: 'x' } })
  await until('the first job ended', 10_000, async () => (await call('GET', `/v1/runs/${run}`)).json.jobs[0].status === 'completed')
  expect(await codes(`${run}.first.0`)).toEqual(['ended'])
  expect((await codes(`${run}.second.0`))[0]).toBe('no_replica')
  await call('POST', `/v1/runs/${run}/cancel`, {})

  const parent = gateway.agent('parent')
  const held = await submit({ agent: 'parent', tasks: [1] })
  const { tasks } = await parent.lease(1)
  expect(await codes(`${held}.task.0`)).toEqual(['running'])
  const made = await parent.post('/v1/delegate', { lease: tasks[0]?.lease, key: 'k', agent: 'idle', input: 1 })
  const waiting = await call('GET', `/v1/tasks/${held}.task.0/explain`)
  expect(waiting.json.reasons[0]).toMatchObject({ code: 'child', ref: made.json.task })
  await call('POST', `/v1/runs/${held}/cancel`, {})
  expect((await call('GET', `/v1/tasks/${held}.nothing.0/explain`)).status).toBe(404)
})

test('a job that needs another says which', async () => {
  const { json } = await call('POST', '/v1/runs', { pipeline: 'chain', inputs: { text: 'x' } })
  const reasons = async (): Promise<readonly AnyJson[]> => (await call('GET', `/v1/tasks/${json.run}.second.0/explain`)).json.reasons
  const first = await reasons()
  // The worker is quick: by now the need may have been met.
  if (first[0]?.code === 'needs') expect(first[0].ref).toBe('first')
  await call('POST', `/v1/runs/${json.run}/cancel`, {})
})

test('explain of a run is one call: its jobs that wait, its tasks, and what they delegated, in pages', async () => {
  const explain = async (run: string, query = ''): Promise<AnyJson> => (await call('GET', `/v1/runs/${run}/explain${query}`)).json
  const chain = await submit({ pipeline: 'held', inputs: {} })
  expect(await explain(chain)).toMatchObject({
    run: chain,
    status: 'running',
    tasks: [
      { id: `${chain}.first.0`, agent: 'idle', status: 'queued', reasons: [{ code: 'no_replica' }] },
      { id: `${chain}.second.0`, agent: 'idle', status: 'queued', reasons: [{ code: 'needs', ref: 'first' }] },
    ],
    next: null,
  })
  await call('POST', `/v1/runs/${chain}/cancel`, {})
  expect(await explain(chain)).toEqual({ run: chain, status: 'cancelled', tasks: [], next: null })

  const parent = gateway.agent('parent')
  const run = await submit({ agent: 'parent', tasks: Array.from({ length: 12 }, (_, index) => index) })
  const { tasks } = await parent.lease(1)
  const made = await parent.post('/v1/delegate', { lease: tasks[0]?.lease, key: 'k', agent: 'idle', input: 1 })
  const whole = await explain(run)
  const ids = whole.tasks.map((it: AnyJson) => it.id)
  expect(ids).toEqual([...Array.from({ length: 12 }, (_, item) => `${run}.task.${item}`), made.json.task])
  expect([whole.tasks[0].status, whole.tasks[0].reasons[0]]).toMatchObject(['running', { code: 'child', ref: made.json.task }])
  const pages: string[] = []
  for (let after: string | null = ''; after !== null; ) {
    const page: AnyJson = await explain(run, `?limit=5${after === '' ? '' : `&after=${after}`}`)
    expect(page.tasks.length).toBeLessThanOrEqual(5)
    pages.push(...page.tasks.map((it: AnyJson) => it.id))
    after = page.next
  }
  expect(pages).toEqual(ids)
  // The last of a page ends before the next one is asked for.
  expect((await parent.post('/v1/complete', { lease: tasks[0]?.lease, result: 1 })).status).toBe(200)
  expect((await explain(run, `?limit=2&after=${run}.task.0`)).tasks.map((it: AnyJson) => it.id)).toEqual([`${run}.task.1`, `${run}.task.2`])
  const delayed = await submit({ agent: 'parent', tasks: [1], delay_ms: 3_600_000 })
  expect(await explain(delayed)).toMatchObject({ status: 'queued', tasks: [{ reasons: [{ code: 'run_delayed' }] }] })
  for (const it of [run, delayed]) await call('POST', `/v1/runs/${it}/cancel`, {})
  expect((await call('GET', `/v1/runs/run_01J00000000000000000000000/explain`)).status).toBe(404)
})
