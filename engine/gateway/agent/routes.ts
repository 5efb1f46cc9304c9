/** The agent protocol's table of routes. What answers, docs/openapi-agent.json and `GET /v1/openapi.json` all come from it. */
import { MAX_BODY_BYTES } from '../../../spec/protocol.ts'
import { approval, askApproval } from './asking.ts'
import type { Handler } from './call.ts'
import { awaitAll, delegate, task } from './delegation.ts'
import { complete, fail, heartbeat, lease } from './leasing.ts'
import { record, recorded } from './recording.ts'
import { fetchArtifact, store } from './storing.ts'
import { logs, progress, traces } from './telling.ts'

export type Method = 'GET' | 'POST' | 'PUT'
export interface Route {
  readonly method: Method
  /** May end with one {NAME}, which stands for the rest of the path. */
  readonly path: string
  readonly handle: Handler
  readonly summary: string
  readonly name?: string
  /** Of the query; traceparent: a header. */
  readonly parameters?: readonly ('lease' | 'wait_ms' | 'traceparent')[]
  /** Name of the body's schema; bytes: a stream; any: JSON of another standard. */
  readonly body?: string
  readonly answer: string
  /** Besides 400, 401, 403 (unknown_agent), 429 and 503, which each may give. */
  readonly errors?: readonly number[]
}

/** Bodies of these come as streams of any length; they watch their senders' pace themselves. */
export const isStream = (route: Route): boolean => route.body === 'bytes'

export const ROUTES: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/lease',
    handle: lease,
    summary: 'Settle, beat and take tasks, in one request.',
    body: 'LeaseRequest',
    answer: 'LeaseReply',
    errors: [409, 413],
  },
  {
    method: 'POST',
    path: '/v1/complete',
    handle: complete,
    summary: 'End a task well.',
    body: 'Complete',
    answer: 'Ok',
    errors: [409, 413],
  },
  {
    method: 'POST',
    path: '/v1/fail',
    handle: fail,
    summary: 'End an execution with an error.',
    body: 'Fail',
    answer: 'Ok',
    errors: [409, 413],
  },
  {
    method: 'POST',
    path: '/v1/heartbeat',
    handle: heartbeat,
    summary: 'Say that you work on a task.',
    body: 'Heartbeat',
    answer: 'HeartbeatReply',
    errors: [409, 413],
  },
  {
    method: 'POST',
    path: '/v1/progress',
    handle: progress,
    summary: 'Say how far a task is.',
    body: 'Progress',
    answer: 'Ok',
    errors: [409, 413],
  },
  { method: 'POST', path: '/v1/logs', handle: logs, summary: 'Log lines of a task.', body: 'Logs', answer: 'Ok', errors: [409, 413] },
  {
    method: 'POST',
    path: '/v1/delegate',
    handle: delegate,
    summary: 'Make a child task, or with `tasks` many at once: all or none.',
    parameters: ['traceparent'],
    body: 'DelegateOneOrMany',
    answer: 'DelegateOneOrManyReply',
    errors: [409, 413],
  },
  {
    method: 'POST',
    path: '/v1/await',
    handle: awaitAll,
    summary: 'Wait until children have all ended.',
    body: 'Await',
    answer: 'AwaitReply',
    errors: [404, 409, 413],
  },
  {
    method: 'GET',
    path: '/v1/tasks/{ID}',
    handle: task,
    summary: 'A child, as soon as it has ended or the time is over.',
    name: 'Id of a child of a task that you hold.',
    parameters: ['wait_ms'],
    answer: 'Task',
    errors: [404],
  },
  {
    method: 'POST',
    path: '/v1/approvals',
    handle: askApproval,
    summary: 'Ask a person. While the question is pending the task is parked.',
    body: 'ApprovalRequest',
    answer: 'Approval',
    errors: [409, 413],
  },
  {
    method: 'GET',
    path: '/v1/approvals/{ID}',
    handle: approval,
    summary: 'A question, as soon as it is decided or the time is over.',
    name: 'Id of a question of a task that you hold.',
    parameters: ['wait_ms'],
    answer: 'Approval',
    errors: [404],
  },
  {
    method: 'PUT',
    path: '/v1/artifacts/{NAME}',
    handle: store,
    summary: 'Store an artifact. It becomes visible with the completion of this execution.',
    name: 'PUT: its name. GET: its digest, sha256:HEX.',
    parameters: ['lease'],
    body: 'bytes',
    answer: 'Artifact',
    errors: [408, 409, 413, 415],
  },
  {
    method: 'GET',
    path: '/v1/artifacts/{NAME}',
    handle: fetchArtifact,
    summary: 'The bytes of an artifact: your own, a child’s, or one named in your input. Takes a Range.',
    name: 'PUT: its name. GET: its digest, sha256:HEX.',
    parameters: ['lease'],
    answer: 'bytes',
    errors: [404, 409, 416],
  },
  {
    method: 'POST',
    path: '/v1/journal',
    handle: record,
    summary: 'Record steps for later executions of the task.',
    body: 'JournalRequest',
    answer: 'Ok',
    errors: [409, 413],
  },
  {
    method: 'GET',
    path: '/v1/journal',
    handle: recorded,
    summary: 'What executions of the task recorded.',
    parameters: ['lease'],
    answer: 'Journal',
    errors: [409],
  },
  {
    method: 'POST',
    path: '/v1/traces',
    handle: traces,
    summary: `Spans as OTLP/JSON, at most ${MAX_BODY_BYTES} bytes. The gateway puts in who you are.`,
    body: 'any',
    answer: 'any',
    errors: [413],
  },
]

const fixed = new Map<string, Route[]>()
const open: { readonly prefix: string; readonly route: Route }[] = []
for (const route of ROUTES) {
  const at = route.path.indexOf('{')
  if (at < 0) fixed.set(route.path, [...(fixed.get(route.path) ?? []), route])
  else open.push({ prefix: route.path.slice(0, at), route })
}

/** The routes of a path, by method; empty: there is no such path. `rest`: what stands for its {NAME}, still escaped. */
export function routesAt(path: string): { readonly routes: readonly Route[]; readonly rest: string } {
  const known = fixed.get(path)
  if (known !== undefined) return { routes: known, rest: '' }
  const routes = open.filter(({ prefix }) => path.startsWith(prefix))
  return { routes: routes.map((it) => it.route), rest: path.slice(routes[0]?.prefix.length ?? 0) }
}
