import { expect, test } from 'vitest'
import type { Pipeline, PipelineJob } from '../../../spec/model.ts'
import {
  checkInputs,
  type JobPhase,
  lastJobs,
  readyJobs,
  resultsUsed,
  runResult,
  runStatus,
  taskInputs,
  worst,
} from '../../../engine/pipeline.ts'

const ref = (...path: string[]) => ({ $ref: path })
const job = (id: string, more: Partial<PipelineJob> = {}): PipelineJob => ({
  id,
  agent: 'a',
  needs: [],
  type: 'task',
  with: {},
  foreach: null,
  ...more,
})
const pipeline = (...jobs: PipelineJob[]): Pipeline => ({ name: 'p', inputs: {}, jobs: Object.fromEntries(jobs.map((it) => [it.id, it])) })
const phases = (all: { [id: string]: JobPhase }) => new Map(Object.entries(all))
const diamond = pipeline(job('a'), job('b', { needs: ['a'] }), job('c', { needs: ['a'] }), job('d', { needs: ['b', 'c'] }))
const ids = (jobs: readonly PipelineJob[]) => jobs.map((it) => it.id)

test('a job is ready when all that it needs has completed', () => {
  expect(ids(readyJobs(diamond, phases({})))).toEqual(['a'])
  expect(ids(readyJobs(diamond, phases({ a: 'running' })))).toEqual([])
  expect(ids(readyJobs(diamond, phases({ a: 'completed' })))).toEqual(['b', 'c'])
  expect(ids(readyJobs(diamond, phases({ a: 'completed', b: 'completed', c: 'running' })))).toEqual([])
  expect(ids(readyJobs(diamond, phases({ a: 'completed', b: 'completed', c: 'completed' })))).toEqual(['d'])
  expect(ids(readyJobs(diamond, phases({ a: 'failed' })))).toEqual([])
})

test('the first failure ends a run; else it ends when all have completed', () => {
  expect(runStatus(diamond, phases({ a: 'completed', b: 'running' }))).toBeNull()
  expect(runStatus(diamond, phases({ a: 'completed', b: 'running', c: 'dead' }))).toBe('failed')
  expect(runStatus(diamond, phases({ a: 'completed', b: 'completed', c: 'completed', d: 'completed' }))).toBe('completed')
  expect(lastJobs(diamond)).toEqual(['d'])
  expect(lastJobs(pipeline(job('x'), job('y')))).toEqual(['x', 'y'])
})

test('references resolve whole values, at any depth of the template', () => {
  const scope = { inputs: { path: '/src', n: 3 }, results: new Map([['plan', { files: [{ name: 'x' }, 'y'] }]]) }
  const resolved = (given: Partial<PipelineJob>) => taskInputs(job('j', given), scope)
  expect(
    resolved({ with: { a: [ref('inputs', 'path'), { b: ref('needs', 'plan', 'result', 'files', '0', 'name') }], c: 1, d: null } }),
  ).toEqual({ ok: true, inputs: [{ a: ['/src', { b: 'x' }], c: 1, d: null }] })
  expect(resolved({ with: ref('inputs', 'n') })).toEqual({ ok: true, inputs: [3] })
  expect(
    resolved({
      with: { f: ref('file'), all: ref('needs', 'plan', 'result') },
      foreach: { in: ref('needs', 'plan', 'result', 'files'), as: 'file' },
    }),
  ).toEqual({
    ok: true,
    inputs: [
      { f: { name: 'x' }, all: { files: [{ name: 'x' }, 'y'] } },
      { f: 'y', all: { files: [{ name: 'x' }, 'y'] } },
    ],
  })
  expect(resolved({ foreach: { in: [], as: 'it' } })).toEqual({ ok: true, inputs: [] })
})

test('what cannot be resolved is an error that says where', () => {
  const scope = { inputs: { s: 'text', proto: {} }, results: new Map() }
  const error = (given: Partial<PipelineJob>) => {
    const resolved = taskInputs(job('j', given), scope)
    return resolved.ok ? null : [resolved.error.code, resolved.error.message]
  }
  expect(error({ with: ref('inputs', 'nope') })).toEqual(['bad_reference', '${{ inputs.nope }}: there is no "nope" in inputs (object)'])
  expect(error({ with: ref('inputs', 's', 'x') })).toEqual(['bad_reference', '${{ inputs.s.x }}: there is no "x" in inputs.s (string)'])
  expect(error({ with: ref('inputs', 'proto', 'constructor') })?.[0]).toBe('bad_reference')
  expect(error({ foreach: { in: ref('inputs', 's'), as: 'it' } })).toEqual(['bad_reference', 'job "j": foreach needs a list, got string'])
  expect(error({ foreach: { in: Array.from({ length: 10_001 }, () => 0), as: 'it' } })?.[0]).toBe('too_many_tasks')
  expect(error({ with: 'x'.repeat(65_535) })).toEqual([
    'payload_too_large',
    'job "j": the input has 65537 bytes of JSON; the limit is 65536. Pass large data by a volume.',
  ])
  expect(error({ with: 'x'.repeat(65_534) })).toBeNull()
})

test('only the results that a job refers to are read', () => {
  const j = job('j', {
    needs: ['a', 'b', 'c'],
    with: { deep: [{ x: ref('needs', 'a', 'result') }] },
    foreach: { in: ref('needs', 'c', 'result'), as: 'b' },
  })
  expect(resultsUsed(j)).toEqual(['a', 'c'])
})

test("a run's result is that of the last jobs, and has a limit", () => {
  expect(runResult(diamond, new Map([['d', 1]]))).toEqual({ ok: true, result: { d: 1 } })
  expect(runResult(diamond, new Map([['d', 'x'.repeat(4_194_304)]]))).toMatchObject({ ok: false, error: { code: 'payload_too_large' } })
})

test('inputs: defaults are filled in, problems are told all at once', () => {
  const p: Pipeline = {
    ...diamond,
    inputs: {
      path: { type: 'string', default: '.', required: false },
      n: { type: 'number', required: true },
      list: { type: 'array', required: false },
      on: { type: 'boolean', default: true, required: false },
    },
  }
  expect(checkInputs(p, { n: 1 })).toEqual({ ok: true, inputs: { path: '.', n: 1, list: null, on: true } })
  expect(checkInputs(p, { path: 1, x: 1, list: {} })).toEqual({
    ok: false,
    message:
      'the inputs do not fit pipeline "p": "x" is not an input; "path" must be a string, got number; "n" is required; "list" must be an array, got object',
    hint: 'Inputs of "p": path (string), n (number), list (array), on (boolean).',
  })
  expect(checkInputs(diamond, { constructor: 1 })).toMatchObject({ ok: false, hint: 'Pipeline "p" takes no inputs.' })
})

test('the worst status of several tasks', () => {
  expect(worst([])).toBe('completed')
  expect(worst(['completed', 'failed', 'completed'])).toBe('failed')
  expect(worst(['failed', 'dead', 'cancelled'])).toBe('dead')
})
