/** The events of a run as server-sent events and as lines: whoever comes back with the last id misses nothing and reads nothing twice. */
import { type ClientRequest, request } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunEvent } from '../../../spec/protocol.ts'
import { type Harness, harness, until } from './harness.ts'

let gateway: Harness
beforeAll(async () => {
  gateway = await harness()
  gateway.configure({ worker: { concurrency: 4 }, slow: {} })
  await gateway.start()
  await gateway.healthy()
  gateway.agent('worker').run(4, async (task, { client }) => {
    for (let n = 1; n <= 5; n++) await client.post('/v1/progress', { lease: task.lease, message: `step ${n}\ndone`, percent: n * 20 })
    return task.input
  })
}, 60_000)
afterAll(() => gateway.stop())

interface Message {
  readonly id: string | null
  readonly type: string
  readonly data: string
}
interface Reading {
  readonly status: Promise<number>
  readonly messages: Message[]
  readonly text: () => string
  readonly ended: Promise<void>
  readonly stop: () => void
}

/** By the rules of the HTML standard, as an EventSource reads it. */
function parse(text: string): Message[] {
  return text.split('\n\n').flatMap((block) => {
    const fields = block
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith(':'))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).replace(/^ /, '')] as const)
    const value = (name: string): string | undefined => fields.findLast(([it]) => it === name)?.[1]
    const data = value('data')
    return data === undefined ? [] : [{ id: value('id') ?? null, type: value('event') ?? 'message', data }]
  })
}

function read(path: string, headers: Record<string, string>): Reading {
  let text = ''
  const status = Promise.withResolvers<number>()
  const ended = Promise.withResolvers<void>()
  const messages: Message[] = []
  const sent: ClientRequest = request({ socketPath: join(gateway.directory, 'control.sock'), path, headers }, (response) => {
    status.resolve(response.statusCode ?? 0)
    response.setEncoding('utf8')
    response.on('data', (chunk: string) => {
      text += chunk
      messages.splice(0, messages.length, ...parse(text.slice(0, text.lastIndexOf('\n\n') + 2)))
    })
    response.on('close', () => ended.resolve())
    response.on('error', () => ended.resolve())
  })
  sent.on('error', () => ended.resolve())
  sent.end()
  return { status: status.promise, messages, text: () => text, ended: ended.promise, stop: () => sent.destroy() }
}
const SSE = { accept: 'text/event-stream' }
const events = (run: string, headers: Record<string, string> = {}): Reading => read(`/v1/runs/${run}/events`, { ...SSE, ...headers })
const tasks = (reading: Reading): readonly RunEvent[] =>
  reading.messages.filter((it) => it.type === 'message').map((it) => JSON.parse(it.data) as RunEvent)

test('every event is a message with an id of its own; the stream says when to come back and how the run ended', async () => {
  const run = await gateway.submit({ agent: 'worker', type: 'task', tasks: ['x'] })
  const reading = events(run)
  await reading.ended
  expect(reading.text()).toMatch(/^retry: \d+\n\n/)
  expect(tasks(reading).map((it) => it.event)).toEqual(['queued', 'leased', ...Array(5).fill('progress'), 'completed'])
  const ids = reading.messages.slice(0, -1).map((it) => it.id)
  expect(new Set(ids).size).toBe(ids.length)
  expect(tasks(reading).map((it) => it.id)).toEqual(ids)
  expect(tasks(reading)[2]?.message).toBe('step 1\ndone')
  expect(reading.messages.at(-1)).toEqual({ id: null, type: 'end', data: JSON.stringify({ run, status: 'completed' }) })
})

test('a reader that is cut off at any event goes on after it', async () => {
  const run = await gateway.submit({ agent: 'worker', type: 'task', tasks: ['a', 'b'] })
  const whole = events(run)
  await whole.ended
  const all = tasks(whole).map((it) => it.id as string)
  for (const [index, id] of all.entries()) {
    const rest = events(run, { 'last-event-id': id })
    if (index === all.length - 1) {
      // Nothing is left of a run that is over: an EventSource is told not to come back.
      expect(await rest.status).toBe(204)
      continue
    }
    await rest.ended
    expect(tasks(rest).map((it) => it.id)).toEqual(all.slice(index + 1))
  }
  // Lines go on as well, by the same header or by `after`.
  for (const [path, headers] of [
    [`/v1/runs/${run}/events?after=${all[2]}`, {}],
    [`/v1/runs/${run}/events?follow=0`, { 'last-event-id': all[2] ?? '' }],
  ] as const) {
    const lines = read(path, { ...headers })
    await lines.ended
    const ids = lines
      .text()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line) as RunEvent).id)
    expect(ids).toEqual(all.slice(3))
  }
  // An id that is not kept (any more): all that is.
  const unknown = events(run, { 'last-event-id': 'gone.0' })
  await unknown.ended
  expect(tasks(unknown).map((it) => it.id)).toEqual(all)
})

test('readers of a run that goes on get what comes', async () => {
  const run = await gateway.submit({ agent: 'slow', type: 'task', tasks: [1] })
  const first = events(run)
  await until('the first event', 10_000, () => tasks(first).length === 1)
  const agent = gateway.agent('slow')
  const { tasks: leased } = await agent.lease(1)
  await agent.post('/v1/progress', { lease: leased[0]?.lease, message: 'one' })
  await until('the progress', 10_000, () => tasks(first).length === 3)
  first.stop()
  await agent.post('/v1/progress', { lease: leased[0]?.lease, message: 'two' })
  const second = events(run, { 'last-event-id': first.messages.at(-1)?.id ?? '' })
  await until('the second progress', 10_000, () => tasks(second).some((it) => it.message === 'two'))
  expect(tasks(second).map((it) => it.message)).toEqual(['two'])
  await agent.post('/v1/complete', { lease: leased[0]?.lease, result: null })
  await second.ended
  expect(tasks(second).map((it) => it.event)).toEqual(['progress', 'completed'])
})

test('a run that is not there is 404, also as a stream', async () => {
  const reading = events('run_01J00000000000000000000000')
  expect(await reading.status).toBe(404)
  await reading.ended
  expect(reading.text()).toContain('AG6001')
})
