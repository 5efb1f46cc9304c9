/** The shapes of spec/protocol.ts that the control API speaks, as schemas. Answers may gain fields; what comes in may not. */
import { MAX_FOREACH } from '../../pipeline.ts'
import { RUN_ID } from '../../ulid.ts'
import { object, orNull, ref, type Schema } from './schema.ts'

const string: Schema = { type: 'string' }
const count: Schema = { type: 'integer', minimum: 0 }
const text = (description: string): Schema => ({ type: 'string', description })
const refOrNull = (name: string): Schema => ({ oneOf: [ref(name), { type: 'null' }] })
const listOf = (items: Schema): Schema => ({ type: 'array', items })
const time: Schema = { type: 'string', format: 'date-time' }
const json: Schema = { description: 'Any JSON.' }

const STATUS = ['queued', 'running', 'completed', 'failed', 'cancelled', 'dead'] as const
/** A day more than a year: what is asked for beyond is a mistake. */
const MAX_MS = 31_622_400_000
const ms: Schema = { type: 'integer', minimum: 0, maximum: MAX_MS }

export const RUN: Schema = { type: 'string', pattern: RUN_ID.source, description: 'run_ and a ULID' }

const TIMEOUTS: Schema = {
  type: 'object',
  description: 'Over those of the agents.',
  properties: { schedule_to_start_ms: ms, start_to_close_ms: ms, schedule_to_close_ms: ms, heartbeat_ms: ms },
  additionalProperties: false,
}

/** Of a submit: what goes with a pipeline and with plain tasks alike. */
const OPTIONS: { readonly [name: string]: Schema } = {
  id: { ...RUN, description: 'The caller’s own id, run_ and a ULID: a repeated submit makes no second run.' },
  traceparent: { type: 'string', maxLength: 128, description: 'W3C trace context that the run belongs to.' },
  priority: { type: 'integer', minimum: -9, maximum: 9, default: 0, description: 'Higher runs first. Children have their parent’s.' },
  delay_ms: { ...ms, description: 'Start no earlier than so many milliseconds from now.' },
  dedup_key: {
    type: 'string',
    minLength: 1,
    maxLength: 256,
    description: 'A submit with the key of a run that is open, or that was made within dedup_ttl_ms, makes none and gives that run.',
  },
  dedup_ttl_ms: { ...ms, description: 'With dedup_key. Default 0: while that run is open.' },
  timeouts: TIMEOUTS,
  retry_of: { ...RUN, description: 'The run that this one repeats.' },
}

export const COMPONENTS: { readonly [name: string]: Schema } = {
  Status: { type: 'string', enum: STATUS },
  WorkError: object({ code: string, message: string, retryable: { type: 'boolean' }, after_ms: count }, ['retryable', 'after_ms']),
  Error: object({ error: object({ code: text('See docs/errors.md.'), message: string, hint: string }, ['hint']) }),
  SubmitRequest: {
    type: 'object',
    description: 'Either a pipeline with inputs, or an agent with a list of inputs, one per task.',
    properties: {
      pipeline: { type: 'string', maxLength: 128 },
      inputs: { type: 'object', description: 'With pipeline.' },
      agent: { type: 'string', maxLength: 128 },
      type: { type: 'string', maxLength: 128, default: 'task', description: 'With agent.' },
      tasks: { type: 'array', minItems: 1, description: `With agent. At most ${MAX_FOREACH}; each at most 64 KiB of JSON.` },
      ...OPTIONS,
    },
    oneOf: [{ required: ['pipeline'] }, { required: ['agent', 'tasks'] }],
    additionalProperties: false,
  },
  SubmitReply: object({ run: RUN, existing: { type: 'boolean', description: 'The run was there already (id or dedup_key).' } }, [
    'existing',
  ]),
  Artifact: object({
    name: string,
    digest: { type: 'string', pattern: '^sha256:[0-9a-f]{64}$' },
    size: count,
    type: text('Media type.'),
    task: string,
  }),
  Task: object(
    {
      id: string,
      agent: string,
      type: string,
      status: ref('Status'),
      attempts: count,
      result: json,
      error: refOrNull('WorkError'),
      trace_id: orNull(string),
      artifacts: listOf(ref('Artifact')),
      times: ref('Times'),
    },
    ['artifacts', 'times'],
  ),
  Times: object(
    {
      created_at: orNull(time),
      started_at: orNull({ ...time, description: 'Its last execution.' }),
      ended_at: orNull(time),
      input_bytes: count,
      result_bytes: orNull(count),
    },
    [],
    'When and how large: of a job with several tasks, from the first to the last.',
  ),
  Job: object(
    {
      id: string,
      agent: string,
      status: ref('Status'),
      attempts: count,
      result: json,
      error: refOrNull('WorkError'),
      tasks: { ...count, description: 'How many tasks it has; of a `foreach` one per element.' },
      children: { ...count, description: 'How many tasks were delegated in it.' },
      times: ref('Times'),
    },
    ['tasks', 'times', 'children'],
  ),
  Run: object(
    {
      run: RUN,
      pipeline: orNull({ type: 'string', description: 'null: plain tasks of one agent.' }),
      status: ref('Status'),
      inputs: { type: 'object' },
      result: { description: '{job: result} of the jobs that nobody needs; null until the run has ended well.' },
      jobs: listOf(ref('Job')),
      trace_id: orNull(string),
      created_at: time,
      ended_at: orNull(time),
      start_at: orNull(time),
      retry_of: RUN,
      error: { ...ref('WorkError'), description: 'Why there is no more of it than this: the broker lost it.' },
      children: { ...count, description: 'How many tasks were delegated.' },
    },
    ['created_at', 'ended_at', 'start_at', 'retry_of', 'error', 'children'],
  ),
  RunSummary: object(
    {
      run: RUN,
      pipeline: orNull(string),
      status: ref('Status'),
      created_at: time,
      ended_at: orNull(time),
      agents: listOf(string),
    },
    ['agents'],
  ),
  Runs: object({ runs: listOf(ref('RunSummary')), next: orNull({ ...RUN, description: '`before` of the next page.' }) }),
  Event: object(
    {
      id: text('Unlike that of any other event of the run.'),
      at: time,
      task: string,
      agent: string,
      event: { type: 'string', enum: [...STATUS, 'leased', 'progress', 'log', 'requeued', 'stalled', 'refused', 'approval'] },
      attempt: count,
      message: string,
      percent: { type: 'number' },
      data: json,
    },
    ['id', 'attempt', 'message', 'percent', 'data'],
  ),
  Explanation: object({
    id: string,
    agent: string,
    status: ref('Status'),
    reasons: listOf(
      object(
        {
          code: {
            type: 'string',
            enum: [
              'ended',
              'running',
              'delayed',
              'retry_delay',
              'behind',
              'no_replica',
              'slots_busy',
              'agent_total',
              'project_concurrency',
              'per_key',
              'rate_limit',
              'child',
              'approval',
              'needs',
              'run_delayed',
              'broker_away',
            ],
          },
          message: string,
          ref: text('The child, key, limit or task that is meant.'),
        },
        ['ref'],
      ),
    ),
  }),
  RunExplanation: object({
    run: RUN,
    status: ref('Status'),
    tasks: listOf(ref('Explanation')),
    next: orNull(text('`after` of the next page.')),
  }),
  Attempt: object({
    attempt: count,
    replica: text('AGENT.REPLICA'),
    started_at: time,
    ended_at: time,
    error: ref('WorkError'),
    log: text('The end of what it wrote.'),
  }),
  DeadLetterSummary: object(deadLetter(), ['archived']),
  DeadLetter: object({ ...deadLetter(), input: json, history: listOf(ref('Attempt')), events: listOf(ref('Event')) }, ['archived']),
  Approval: object({
    id: string,
    task: string,
    agent: string,
    key: string,
    message: string,
    data: json,
    status: { type: 'string', enum: ['pending', 'approved', 'rejected'] },
    created_at: time,
    decided_at: orNull(time),
    comment: orNull(string),
  }),
  Replica: object(
    {
      agent: string,
      replica: count,
      connected: { type: 'boolean' },
      tasks: count,
      stalled: text('Why it is to be replaced.'),
      unproved: { type: 'boolean', description: 'Its container has not been found as it was declared: it gets no work.' },
    },
    ['stalled', 'unproved'],
  ),
}

function deadLetter(): { readonly [name: string]: Schema } {
  return {
    id: string,
    run: RUN,
    agent: string,
    type: string,
    status: { type: 'string', enum: ['failed', 'dead'] },
    attempts: count,
    error: refOrNull('WorkError'),
    ended_at: time,
    trace_id: orNull(string),
    archived: { type: 'boolean', description: 'Its run has left the broker; what is told of it is from the archive.' },
  }
}
