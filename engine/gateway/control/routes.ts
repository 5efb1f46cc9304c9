/** Every route of the control API, once: it is served from this table, checked by it, and described from it (OpenAPI). */
import * as approvals from './approvals.ts'
import * as artifacts from './artifacts.ts'
import { answerJson, type Call, type Kit, LIMIT, type Parameter, type Route, send, WAIT } from './call.ts'
import { COMPONENTS, RUN } from './components.ts'
import * as dlq from './dlq.ts'
import * as gateway from './gateway.ts'
import { openapi } from './openapi.ts'
import * as runs from './runs.ts'
import { object, ref, type Schema } from './schema.ts'
import { streamEvents } from './stream.ts'
import * as tasks from './tasks.ts'

const AGENT: Parameter = { type: 'string', description: 'Only of this agent.' }
const nothing: Schema = { type: 'object', properties: {}, additionalProperties: false }
const closed = (properties: { readonly [name: string]: Schema }): Schema => ({ type: 'object', properties, additionalProperties: false })
const NEW_ID: Schema = { ...RUN, description: 'Id of the new run, so that a repeated request makes no second one.' }

const RUN_ROUTES: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/runs',
    id: 'submit',
    summary: 'Submit a pipeline, or tasks for one agent',
    body: ref('SubmitRequest'),
    answers: answerJson('The run: a new one, or the one that was there (id, dedup_key).', ref('SubmitReply')),
    errors: [404, 408, 413, 429, 503],
    handle: runs.submit,
  },
  {
    method: 'GET',
    path: '/v1/runs',
    id: 'listRuns',
    summary: 'Runs, newest first',
    query: {
      limit: LIMIT,
      before: { ...RUN, description: '`next` of the page before' },
      status: { ...(COMPONENTS['Status'] as Schema), description: 'Only runs of this status.' },
      agent: { type: 'string', description: 'Only runs with a job of this agent.' },
    },
    answers: answerJson('A page.', ref('Runs')),
    errors: [503],
    handle: runs.list,
  },
  {
    method: 'GET',
    path: '/v1/runs/{run}',
    id: 'showRun',
    summary: 'A run, its jobs and its result',
    query: { wait_ms: WAIT },
    answers: answerJson('The run as it is.', ref('Run')),
    errors: [404, 503],
    handle: runs.show,
  },
  {
    method: 'GET',
    path: '/v1/runs/{run}/events',
    id: 'runEvents',
    summary: 'What happens in a run: JSON Lines, or server-sent events with `Accept: text/event-stream`',
    description:
      'First the events that are kept (the latest 2,000), then what comes, until the run has ended. With Last-Event-ID (or `after`) it goes on after that event. An empty line, or a comment, is sent every 15 s. Server-sent events end with one of type `end`; who then comes back gets 204.',
    query: {
      follow: { type: 'string', enum: ['0', '1'], default: '1', description: '0: what is kept, and no more.' },
      after: { type: 'string', description: 'As Last-Event-ID.' },
    },
    headers: { 'Last-Event-ID': { type: 'string', description: '`id` of the last event that was read.' } },
    answers: {
      '200': {
        description: 'One event per line or message.',
        content: { 'application/jsonl': ref('Event'), 'text/event-stream': ref('Event') },
      },
      '204': { description: 'Server-sent events: the run has ended and all of it was read.' },
    },
    errors: [404, 503],
    handle: streamEvents,
  },
  {
    method: 'GET',
    path: '/v1/runs/{run}/explain',
    id: 'explainRun',
    summary: 'Why a run does not go on: each of its unfinished tasks, and what they delegated',
    query: { limit: LIMIT, after: { type: 'string', description: '`next` of the page before' } },
    answers: answerJson('A page; of a run that has ended an empty one.', ref('RunExplanation')),
    errors: [404, 503],
    handle: runs.explain,
  },
  {
    method: 'POST',
    path: '/v1/runs/{run}/cancel',
    id: 'cancelRun',
    summary: 'Cancel a run; one that has ended stays as it is',
    body: nothing,
    answers: answerJson('How it stands.', object({ run: RUN, status: ref('Status') })),
    errors: [404, 503],
    handle: runs.cancel,
  },
  {
    method: 'POST',
    path: '/v1/runs/{run}/retry',
    id: 'retryRun',
    summary: 'Repeat a run that has ended',
    description: 'As a new run with `retry_of`: of plain tasks those that did not complete, of a pipeline all of it with the same inputs.',
    body: closed({ id: NEW_ID, all: { type: 'boolean', default: false, description: 'Also the tasks that completed.' } }),
    answers: answerJson('The new run.', ref('SubmitReply')),
    errors: [404, 409, 429, 503],
    handle: runs.retry,
  },
]

const TASK_ROUTES: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/tasks/{task}',
    id: 'showTask',
    summary: 'A task and its result',
    query: { wait_ms: WAIT },
    answers: answerJson('The task as it is.', ref('Task')),
    errors: [404, 503],
    handle: tasks.show,
  },
  {
    method: 'GET',
    path: '/v1/tasks/{task}/explain',
    id: 'explainTask',
    summary: 'Why a task waits',
    answers: answerJson('The reasons, most immediate first.', ref('Explanation')),
    errors: [404, 503],
    handle: tasks.explain,
  },
]

const DLQ_ROUTES: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/dlq',
    id: 'listDeadLetters',
    summary: 'Tasks that ended failed or dead and were not dropped, newest first',
    query: { limit: LIMIT, before: { type: 'string', pattern: '^\\d+:.+$', description: '`next` of the page before' }, agent: AGENT },
    answers: answerJson(
      'A page.',
      object({ tasks: { type: 'array', items: ref('DeadLetterSummary') }, next: { type: ['string', 'null'] } }),
    ),
    errors: [503],
    handle: dlq.list,
  },
  {
    method: 'GET',
    path: '/v1/dlq/{task}',
    id: 'showDeadLetter',
    summary: 'A dead letter: its input, each of its executions, its events',
    answers: answerJson('All that is kept of it.', ref('DeadLetter')),
    errors: [404, 503],
    handle: dlq.show,
  },
  {
    method: 'POST',
    path: '/v1/dlq/{task}/retry',
    id: 'retryDeadLetter',
    summary: 'Run it again, with another input if one is given; it stays until it is dropped',
    body: closed({ id: NEW_ID, input: { description: 'In place of its own.' } }),
    answers: answerJson('A new run of this one task.', ref('SubmitReply')),
    errors: [404, 408, 413, 429, 503],
    handle: dlq.retry,
  },
  {
    method: 'POST',
    path: '/v1/dlq/{task}/drop',
    id: 'dropDeadLetter',
    summary: 'Take it off the list; its run still shows it',
    body: nothing,
    answers: answerJson('It is gone.', nothing),
    errors: [404, 503],
    handle: dlq.drop,
  },
]

const APPROVAL_ROUTES: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/approvals',
    id: 'listApprovals',
    summary: 'Questions of tasks to people',
    query: {
      status: { type: 'string', enum: ['pending', 'approved', 'rejected', 'all'], default: 'pending', description: 'Default: pending.' },
    },
    answers: answerJson(
      'Those of tasks that have not ended, oldest first.',
      object({ approvals: { type: 'array', items: ref('Approval') } }),
    ),
    errors: [503],
    handle: approvals.list,
  },
  {
    method: 'GET',
    path: '/v1/approvals/{approval}',
    id: 'showApproval',
    summary: 'One question',
    answers: answerJson('As it stands.', ref('Approval')),
    errors: [404, 503],
    handle: approvals.show,
  },
  {
    method: 'POST',
    path: '/v1/approvals/{approval}',
    id: 'decideApproval',
    summary: 'Approve or reject; the task goes on with the answer',
    body: {
      ...closed({ decision: { type: 'string', enum: ['approve', 'reject'] }, comment: { type: 'string', maxLength: 2_000 } }),
      required: ['decision'],
    },
    answers: answerJson('As it was decided.', ref('Approval')),
    errors: [404, 409, 503],
    handle: approvals.decide,
  },
]

const ARTIFACT_ROUTES: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/runs/{run}/artifacts',
    id: 'listArtifacts',
    summary: 'What the tasks of a run have stored',
    answers: answerJson('Those of tasks that completed.', object({ artifacts: { type: 'array', items: ref('Artifact') } })),
    errors: [404, 503],
    handle: artifacts.ofRun,
  },
  {
    method: 'GET',
    path: '/v1/artifacts/{digest}',
    id: 'artifact',
    summary: 'The bytes of an artifact',
    answers: { '200': { description: 'The bytes.', content: { 'application/octet-stream': { type: 'string', format: 'binary' } } } },
    errors: [404, 503],
    handle: artifacts.bytes,
  },
]

const GATEWAY_ROUTES: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/health',
    id: 'health',
    summary: 'Is the gateway there, and its broker',
    answers: answerJson(
      'It is.',
      object({
        ok: { type: 'boolean' },
        broker: { type: 'boolean' },
        project: { type: 'string' },
        broker_loss: {
          description:
            'null, or the last loss of data of the broker: {kind: "volume" or "truncated", from, to, runs, at}; `runs` are those that are lost.',
        },
      }),
    ),
    handle: gateway.health,
  },
  {
    method: 'GET',
    path: '/v1/replicas',
    id: 'replicas',
    summary: 'Replicas as the gateway knows them',
    query: {
      wait_ms: WAIT,
      connected: { type: 'string', description: 'AGENT:REPLICA,…: hold the answer until all of these are connected.' },
      unproved: { type: 'string', enum: ['0', '1'], default: '0', description: '1: only those that get no work for want of a proof.' },
    },
    answers: answerJson('All that have been heard.', object({ replicas: { type: 'array', items: ref('Replica') } })),
    handle: gateway.replicas,
  },
  {
    method: 'POST',
    path: '/v1/replicas/proofs',
    id: 'prove',
    summary: 'Which replicas were found as they were declared (for the controller): the others get no work',
    body: {
      ...object({
        proofs: {
          type: 'array',
          maxItems: 10_000,
          items: object({ agent: { type: 'string' }, replica: { type: 'integer', minimum: 1 }, proved: { type: 'boolean' } }),
        },
      }),
      additionalProperties: false,
    },
    answers: answerJson('They are known.', nothing),
    handle: gateway.prove,
  },
  {
    method: 'POST',
    path: '/v1/reload',
    id: 'reload',
    summary: 'Read the project record now (for the CLI and the controller)',
    body: nothing,
    answers: answerJson('Done.', nothing),
    handle: gateway.reload,
  },
  {
    method: 'POST',
    path: '/v1/traces',
    id: 'traces',
    summary: 'OTLP/HTTP spans for the project’s receiver, as JSON or protobuf',
    answers: answerJson('They will be passed on.', nothing),
    errors: [413],
    handle: gateway.traces,
  },
  {
    method: 'GET',
    path: '/v1/openapi.json',
    id: 'openapi',
    summary: 'This document',
    answers: answerJson('OpenAPI 3.1.', { type: 'object' }),
    handle: async (_kit: Kit, call: Call) => send(call, openapi(ROUTES)),
  },
]

export const ROUTES: readonly Route[] = [
  ...RUN_ROUTES,
  ...TASK_ROUTES,
  ...DLQ_ROUTES,
  ...APPROVAL_ROUTES,
  ...ARTIFACT_ROUTES,
  ...GATEWAY_ROUTES,
]
