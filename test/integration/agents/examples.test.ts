import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Json } from '../../../spec/protocol.ts'
import { type Stack, stack } from '../../support/stack.ts'

const ROOT = join(import.meta.dirname, '../../..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

const result = async (on: Stack, agent: string, input: Json): Promise<Json> => {
  const { status, jobs } = await on.ended(await on.submit({ agent, type: 'task', tasks: [input] }))
  const [job] = jobs
  return status === 'completed' ? (job?.result ?? null) : { status, error: job?.error?.message ?? null }
}

describe('examples/shell-agent, and the lines of docs/protocol.md', () => {
  let on: Stack
  // The page's lines as an agent: again and again, as it does not know when a task comes.
  const extra = `
  page:
    entrypoint: ["/bin/sh", "-c", "until sh -eu /page/lines.sh; do sleep 0.1; done; sleep infinity"]
    volumes: ["./page:/page:ro"]
    delegates_to: [shell]
`
  const lines = /```sh\n([\s\S]*?)```/.exec(read('docs/protocol.md'))?.[1] ?? 'exit 1'
  beforeAll(async () => {
    on = await stack('shell-agent', {
      'agents.yaml': read('examples/shell-agent/agents.yaml') + extra,
      'app/agent.sh': read('examples/shell-agent/app/agent.sh'),
      'page/lines.sh': lines,
    })
  })
  afterAll(() => on?.[Symbol.asyncDispose]())

  test('an agent in sh and curl counts words', async () => {
    expect(await result(on, 'words', { text: 'to be or "not" to be' })).toEqual({ words: 6, first: 'to' })
    expect(await result(on, 'words', { text: '\t"\\n"\n\u0001 ü\r\nend', lease: 'of its own' })).toEqual({ words: 4, first: '"\\n"' })
    expect(await result(on, 'words', { command: 'echo one two three' })).toEqual({ words: 3, first: 'one' })
    expect(await result(on, 'words', { texts: [] })).toEqual({ status: 'failed', error: 'expected {"text": "some words"}' })
  })

  test('the lines of the page lease, beat, report, delegate and complete', async () => {
    const run = await on.submit({ agent: 'page', type: 'task', tasks: [null] })
    expect(await on.ended(run)).toMatchObject({ status: 'completed', jobs: [{ result: { words: 3 } }] })
  })
})

test('examples/hello passes the result of a command to a module', async () => {
  await using on = await stack('hello', {
    'agents.yaml': read('examples/hello/agents.yaml'),
    'greeter/greet.ts': read('examples/hello/greeter/greet.ts'),
  })
  const run = await on.submit({ pipeline: 'hello', inputs: { name: 'Ada' } })
  expect(await on.ended(run)).toMatchObject({
    status: 'completed',
    result: { greet: { greeting: 'Hello Ada, from user 10001 on Linux', attempt: 1 } },
  })
  expect(await result(on, 'shell', { command: 'curl -sS -m 5 https://192.0.2.1; echo $?; pwd; env | grep -c AGENTCTL' })).toMatchObject({
    stdout: expect.stringMatching(/^[1-9]\d*\n\/workspace\n0\n$/),
  })
})
