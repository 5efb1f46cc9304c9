/**
 * The shapes of the agent protocol (spec/protocol.ts) as JSON Schema 2020-12, for its OpenAPI document. Unknown fields are tolerated, both
 * ways: agents and gateways may be of different versions.
 */
import {
  JOURNAL_ENTRIES,
  LOG_BYTES_PER_S,
  MAX_CHILDREN,
  MAX_PAYLOAD_BYTES,
  MAX_PROGRESS_BYTES,
  MAX_IDLE_WAIT_MS,
  MAX_WAIT_MS,
} from '../../../spec/protocol.ts'
import { object, orNull, ref, type Schema } from '../control/schema.ts'

const text = (description: string, max?: number): Schema => ({
  type: 'string',
  description,
  ...(max === undefined ? {} : { minLength: 1, maxLength: max }),
})
const whole = (description: string, minimum: number = 0): Schema => ({ type: 'integer', minimum, description })
const json = (description: string): Schema => ({ description })
const list = (items: Schema, description: string, maxItems?: number): Schema => ({
  type: 'array',
  items,
  description,
  ...(maxItems === undefined ? {} : { maxItems }),
})

const lease = text('Secret of one execution, from POST /v1/lease.')
const leases = (description: string): Schema => list({ type: 'string' }, description, 10_000)
const wait_ms = whole(`How long the gateway may hold the request; clamped to ${MAX_WAIT_MS}.`)
const idle_wait_ms = whole(
  `How long the gateway may hold the request; clamped to ${MAX_WAIT_MS}, in a session that holds nothing to ${MAX_IDLE_WAIT_MS}: from ${MAX_WAIT_MS} on the gateway chooses.`,
)
const payload = (what: string): Schema => json(`${what}: any JSON of at most ${MAX_PAYLOAD_BYTES} bytes, nested at most 128 levels deep.`)
const time: Schema = { type: 'string', format: 'date-time' }

const DELEGATED = {
  key: text('Your name for this child: the same key is the same child, also after a retry of yours.', 256),
  agent: text('An agent that stands in your delegates_to.'),
  type: text('Default: task.', 64),
  input: payload('What it gets'),
}

export const SCHEMAS: { readonly [name: string]: Schema } = {
  Ok: object({ ok: { const: true } }),
  Error: object({
    error: object({ code: text('Stable; see docs/protocol.md.'), message: text('For people.'), hint: text('What to do.') }, ['hint']),
  }),
  Health: object({ ok: { const: true }, protocol: whole('Version of the protocol.', 1) }),
  WorkError: object(
    {
      code: text('Yours; cut to 64 characters.'),
      message: text('For people; cut to 4,096 characters.'),
      retryable: { type: 'boolean', description: 'The task may be tried again.' },
      after_ms: { type: 'number', minimum: 0, description: 'With retryable: not before so many ms from now; at most a day.' },
    },
    ['retryable', 'after_ms'],
  ),
  Settlement: {
    oneOf: [
      object({ lease, status: { const: 'completed' }, result: payload('The result') }),
      object({ lease, status: { const: 'failed' }, error: ref('WorkError') }),
    ],
  },
  LeaseRequest: object(
    {
      want: whole('How many tasks at most; 0 settles and beats only.'),
      wait_ms: idle_wait_ms,
      beat: leases('All leases that you hold: those that you are working on, and those whose end was not answered yet.'),
      done: list(ref('Settlement'), 'Ends of tasks.', 10_000),
    },
    ['want', 'wait_ms', 'beat', 'done'],
  ),
  LeasedTask: object(
    {
      lease,
      id: text('Of the task.'),
      run: text('Its run.'),
      agent: text('You.'),
      type: text('As submitted.'),
      input: json('As submitted.'),
      attempt: whole('1 for the first execution. ID:ATTEMPT is an idempotency key towards the outside.', 1),
      deadline: orNull({ type: 'number', description: 'Unix ms at which the gateway gives this execution up.' }),
      traceparent: orNull(text('W3C trace context of this execution.')),
      journal: whole('Steps that earlier executions recorded; absent: none.', 1),
    },
    ['journal'],
  ),
  LeaseReply: object({
    tasks: list(ref('LeasedTask'), 'Yours now.'),
    settled: list(
      object(
        {
          lease,
          ok: { type: 'boolean' },
          code: { type: 'string', enum: ['lease_lost', 'payload_too_large', 'bad_request'] },
        },
        ['code'],
      ),
      'An answer to each of `done`.',
    ),
    cancel: leases('To stop now: cancelled, past their deadline, or lost.'),
  }),
  Complete: object({ lease, result: payload('The result') }, ['result']),
  Fail: object({ lease, error: ref('WorkError') }),
  Heartbeat: object({ lease }),
  HeartbeatReply: object({ ok: { const: true }, cancel: leases('Your lease, if it is to stop.') }),
  Progress: object(
    {
      lease,
      message: text('For people.'),
      percent: { type: 'number', description: '0 to 100.' },
      data: json(`At most ${MAX_PROGRESS_BYTES} bytes of JSON.`),
      step: object(
        {
          name: text('What was done.', 256),
          tool: text('With which tool.', 256),
          args_hash: text('Of its arguments; compared and nothing else.', 256),
          tokens: { type: 'number', minimum: 0, description: 'Used by this step.' },
          milestone: text('Anything that changes when the work gets further.', 256),
        },
        ['tool', 'args_hash', 'tokens', 'milestone'],
      ),
    },
    ['message', 'percent', 'data', 'step'],
  ),
  Logs: object({
    lease,
    lines: list(
      object({ stream: { type: 'string', enum: ['stdout', 'stderr', 'log'] }, text: { type: 'string' } }),
      `${LOG_BYTES_PER_S} bytes together.`,
      1_000,
    ),
  }),
  Delegate: object({ lease, ...DELEGATED }, ['type']),
  DelegateReply: object({ task: text('Id of the child.') }),
  DelegateMany: object({
    lease,
    tasks: { ...list(object(DELEGATED, ['type']), 'Their keys differ. All are made or none.', MAX_CHILDREN), minItems: 1 },
  }),
  DelegateManyReply: object({ tasks: list({ type: 'string' }, 'Ids of the children, in order.') }),
  DelegateOneOrMany: { oneOf: [ref('Delegate'), ref('DelegateMany')] },
  DelegateOneOrManyReply: { oneOf: [ref('DelegateReply'), ref('DelegateManyReply')] },
  Await: object({ lease, tasks: list({ type: 'string' }, 'Ids of children of yours.', MAX_CHILDREN), wait_ms }, ['wait_ms']),
  AwaitReply: object({ done: { type: 'boolean', description: 'All have ended.' }, tasks: list(ref('Task'), 'In order, each once.') }),
  Task: object(
    {
      id: { type: 'string' },
      agent: { type: 'string' },
      type: { type: 'string' },
      status: { type: 'string', enum: ['queued', 'running', 'completed', 'failed', 'cancelled', 'dead'] },
      attempts: whole('Executions so far.'),
      result: json('null until it has completed.'),
      error: { oneOf: [ref('WorkError'), { type: 'null' }] },
      trace_id: orNull({ type: 'string' }),
      artifacts: list(ref('Artifact'), 'Of the execution that completed it; absent: none.'),
    },
    ['artifacts'],
  ),
  ApprovalRequest: object(
    {
      lease,
      key: text('The same key is the same question, also for a later execution.', 256),
      message: text('The question; at most 4,096 bytes.', 4_096),
      data: payload('What it is about'),
    },
    ['data'],
  ),
  Approval: object({
    id: { type: 'string' },
    task: { type: 'string' },
    agent: { type: 'string' },
    key: { type: 'string' },
    message: { type: 'string' },
    data: json('As asked.'),
    status: { type: 'string', enum: ['pending', 'approved', 'rejected'] },
    created_at: time,
    decided_at: orNull(time),
    comment: orNull(text('What the person said.')),
  }),
  Artifact: object({
    name: { type: 'string' },
    digest: { type: 'string', pattern: '^sha256:[0-9a-f]{64}$' },
    size: whole('Bytes.'),
    type: text('Media type, as you said.'),
    task: { type: 'string' },
  }),
  JournalEntry: object({
    key: { type: 'string', pattern: '^.{1,200}#[1-9][0-9]{0,5}$', description: 'NAME#N: the N-th step of that name, from 1.' },
    kind: { type: 'string', enum: ['step', 'checkpoint'] },
    value: payload('What the step gave'),
  }),
  JournalRequest: object({ lease, entries: list(ref('JournalEntry'), 'The first record of a key stays.', JOURNAL_ENTRIES) }),
  Journal: object({ entries: list(ref('JournalEntry'), 'In the order in which they were recorded.') }),
}
