import { expect, test } from 'vitest'
import { openControl } from '../../../engine/control.ts'
import { AgentctlError } from '../../../engine/errors.ts'
import type { RunEvent } from '../../../spec/protocol.ts'
import { answer, bodyOf, fakeGateway } from './fake-gateway.ts'

const never = new AbortController().signal
const failure = async (promise: Promise<unknown>): Promise<AgentctlError> => {
  const error = await promise.then(
    () => new Error('it did not fail'),
    (reason) => reason as unknown,
  )
  expect(error).toBeInstanceOf(AgentctlError)
  return error as AgentctlError
}

test('requests follow one another on one exec stream', async () => {
  const seen: string[] = []
  await using gateway = await fakeGateway(async (request, response) => {
    seen.push(`${request.method} ${request.url} ${await bodyOf(request)}`)
    answer(
      response,
      200,
      request.url === '/v1/runs' && request.method === 'GET'
        ? { runs: [] }
        : request.url?.startsWith('/v1/replicas')
          ? { replicas: [] }
          : { run: 'run_1' },
    )
  })
  const control = await openControl(gateway.runtime, 'p', never)
  expect(await control.submit({ id: 'run_1', pipeline: 'audit', inputs: { path: '.' } })).toEqual({ run: 'run_1' })
  await control.runs()
  await control.run('run_1', 500)
  await control.cancel('run_1')
  await control.replicas({
    wait_ms: 10,
    connected: [
      { agent: 'a', replica: 1 },
      { agent: 'b', replica: 2 },
    ],
  })
  await control.traces(Buffer.from('x'), 'application/x-protobuf')
  control.close()
  expect(seen).toEqual([
    'POST /v1/runs {"id":"run_1","pipeline":"audit","inputs":{"path":"."}}',
    'GET /v1/runs ',
    'GET /v1/runs/run_1?wait_ms=500 ',
    'POST /v1/runs/run_1/cancel {}',
    'GET /v1/replicas?wait_ms=10&connected=a%3A1%2Cb%3A2 ',
    'POST /v1/traces x',
  ])
  expect(gateway.opened()).toBe(1)
})

test('large bodies pass in both directions', async () => {
  const big = 'ä'.repeat(600_000)
  await using gateway = await fakeGateway(async (request, response) => answer(response, 200, JSON.parse(await bodyOf(request))))
  const control = await openControl(gateway.runtime, 'p', never)
  expect(await control.submit({ id: 'run_1', pipeline: big, inputs: {} })).toEqual({ id: 'run_1', pipeline: big, inputs: {} })
  control.close()
})

test("a refusal keeps the gateway's code, message and hint and is not retried", async () => {
  let calls = 0
  await using gateway = await fakeGateway((_request, response) => {
    calls++
    answer(response, 404, { error: { code: 'AG6001', message: 'no run "run_x"', hint: 'look again' } })
  })
  const control = await openControl(gateway.runtime, 'p', never)
  const error = await failure(control.run('run_x'))
  control.close()
  expect([error.code, error.message, error.hint, error.exit, calls]).toEqual(['AG6001', 'no run "run_x"', 'look again', 1, 1])
})

test('an input over the limit is bad input: exit 2', async () => {
  await using gateway = await fakeGateway((_request, response) =>
    answer(response, 413, { error: { code: 'payload_too_large', message: 'over 64 KiB' } }),
  )
  const control = await openControl(gateway.runtime, 'p', never)
  const error = await failure(control.submit({ pipeline: 'x', inputs: {} }))
  control.close()
  expect([error.code, error.exit]).toEqual(['AG6005', 2])
})

test('a gateway that comes back within the time is not noticed', async () => {
  await using gateway = await fakeGateway((_request, response) => answer(response, 200, { ok: true }))
  const control = await openControl(gateway.runtime, 'p', never)
  await control.health()
  await gateway.stop()
  const later = control.health()
  setTimeout(() => void gateway.start(), 250)
  expect(await later).toEqual({ ok: true })
  control.close()
})

test('a gateway that stays away is AG5001 and says why', async () => {
  await using gateway = await fakeGateway((_request, response) => answer(response, 200, {}))
  await gateway.stop()
  const control = await openControl(gateway.runtime, 'research', never, { retry_ms: 250 })
  const error = await failure(control.health())
  control.close()
  expect(error.code).toBe('AG5001')
  expect(error.message).toMatch(/the gateway of project "research" does not answer: socat E connect ENOENT/)
})

test('a gateway that accepts and never answers runs into the timeout', async () => {
  await using gateway = await fakeGateway(() => undefined)
  const control = await openControl(gateway.runtime, 'p', never, { retry_ms: 0, request_timeout_ms: 100 })
  expect((await failure(control.health())).message).toContain('no answer within 100 ms')
  control.close()
})

test('an abort ends a waiting request at once', async () => {
  await using gateway = await fakeGateway(() => undefined)
  const abort = new AbortController()
  const control = await openControl(gateway.runtime, 'p', abort.signal)
  setTimeout(() => abort.abort(), 50)
  const error = await failure(control.run('run_1', 30_000))
  control.close()
  expect([error.code, error.exit]).toEqual(['AG7002', 130])
})

test('events go on after a broken connection, none twice', async () => {
  const lines: RunEvent[] = [1, 2, 3, 4].map((n) => ({
    at: `2026-01-01T00:00:0${n >> 1}.000Z`,
    task: `t${n}`,
    agent: 'a',
    event: 'completed',
  }))
  let calls = 0
  await using gateway = await fakeGateway((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/jsonl' })
    for (const line of calls++ === 0 ? lines.slice(0, 2) : lines) response.write(`${JSON.stringify(line)}\n`)
    if (calls === 1) setTimeout(() => response.destroy(), 20)
    else response.end()
  })
  const control = await openControl(gateway.runtime, 'p', never)
  const seen: string[] = []
  for await (const event of control.events('run_1', { follow: true })) seen.push(event.task)
  control.close()
  expect(seen).toEqual(['t1', 't2', 't3', 't4'])
  expect(calls).toBe(2)
})
