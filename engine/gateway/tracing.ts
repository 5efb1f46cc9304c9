/** The gateway's part of a run's one trace. Spans are told when they have ended, with ids that follow from the task: a restart breaks none. */
import { type Attributes } from '@opentelemetry/api'
import type { WorkStatus } from '../../spec/protocol.ts'
import { ATTR, MESSAGING_SYSTEM, OPERATION, SPAN } from '../telemetry/names.ts'
import { recordSpan } from '../telemetry/spans.ts'
import { derivedTraceparent, newTraceparent, parseTraceparent } from '../telemetry/traceparent.ts'
import type { Replica } from './replicas.ts'
import type { Task } from './work.ts'

export interface RunSpan {
  readonly id: string
  readonly workflow: string
  readonly pipeline: string | null
  readonly parent: string | null
  readonly traceparent: string
  readonly created: number
}

export interface Tracing {
  /** The run's own span, below the submitter's. */
  run(id: string, parent: string | null): string
  runStarted(run: RunSpan): void
  runEnded(run: RunSpan, status: WorkStatus): void
  /** The span under which tasks are sent: one per job of a pipeline, one per delegated child. */
  send(parent: string, key: string): string
  sent(traceparent: string, parent: string, agent: string, run: string, count: number): void
  /** What the agent gets as its parent. */
  process(task: Task, attempt: number): string
  /** `queued`: it is tried again. */
  processed(task: Task, attempt: number, replica: Replica, since: number, status: WorkStatus, error: string | null): void
}

/** `on`: is there a receiver? Without one ids are still given, and nothing else is done. */
export function makeTracing(on: () => boolean): Tracing {
  const messaging = (agent: string, run: string): Attributes => ({
    [ATTR.messagingSystem]: MESSAGING_SYSTEM,
    [ATTR.destination]: agent,
    [ATTR.run]: run,
  })
  const process = (task: Task, attempt: number): string =>
    on() ? derivedTraceparent(task.sent, `process|${task.id}|${attempt}`) : task.sent
  const workflow = (run: RunSpan): Attributes => ({
    [ATTR.operation]: OPERATION.workflow,
    [ATTR.workflowName]: run.workflow,
    [ATTR.run]: run.id,
    ...(run.pipeline === null ? {} : { [ATTR.pipeline]: run.pipeline }),
  })
  return {
    run: (id, parent) => derivedTraceparent(parseTraceparent(parent) === null ? newTraceparent() : (parent as string), `run|${id}`),
    runStarted(run) {
      if (!on()) return
      recordSpan({
        name: SPAN.runStarted,
        traceparent: derivedTraceparent(run.traceparent, `started|${run.id}`),
        parent: run.traceparent,
        attributes: workflow(run),
        start: run.created,
        end: run.created,
      })
    },
    runEnded(run, status) {
      if (!on()) return
      recordSpan({
        name: SPAN.run(run.workflow),
        traceparent: run.traceparent,
        parent: run.parent,
        attributes: { ...workflow(run), [ATTR.status]: status },
        start: run.created,
        end: Date.now(),
        error: status === 'completed' ? null : status,
      })
    },
    send: (parent, key) => derivedTraceparent(parent, `send|${key}`),
    sent(traceparent, parent, agent, run, count) {
      if (!on()) return
      const now = Date.now()
      recordSpan({
        name: SPAN.send(agent),
        traceparent,
        parent,
        kind: 'producer',
        start: now,
        end: now,
        attributes: {
          ...messaging(agent, run),
          [ATTR.messagingOperation]: 'send',
          [ATTR.messagingType]: 'send',
          ...(count === 1 ? {} : { 'messaging.batch.message_count': count }),
        },
      })
    },
    process,
    processed(task, attempt, replica, since, status, error) {
      if (!on()) return
      recordSpan({
        name: SPAN.process(task.agent),
        traceparent: process(task, attempt),
        parent: task.sent,
        kind: 'consumer',
        start: since,
        end: Date.now(),
        error,
        attributes: {
          ...messaging(task.agent, task.run),
          [ATTR.messagingOperation]: 'process',
          [ATTR.messagingType]: 'process',
          [ATTR.task]: task.id,
          [ATTR.taskType]: task.type,
          [ATTR.attempt]: attempt,
          [ATTR.replica]: replica.replica,
          [ATTR.status]: status,
          ...(task.job === null ? {} : { [ATTR.job]: task.job }),
        },
      })
    },
  }
}
