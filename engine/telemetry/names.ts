/**
 * Every span name and attribute key that we emit. GenAI conventions: what v1.41 and the later drafts share; messaging
 * conventions v1.44. Names are of low cardinality: agents, pipelines, verbs, never ids or anything a user typed into a task.
 */

export const SPAN = {
  /** Root of a command, from the CLI: "agentctl run". */
  command: (verb: string): string => `agentctl ${verb}`,
  /** One run, from the gateway: `workflow` is the pipeline's name, or the agent's for a run of plain tasks. */
  run: (workflow: string): string => `invoke_workflow ${workflow}`,
  /** 0 ms, sent at once, so that a run can be found while it runs. */
  runStarted: 'agentctl.run.started',
  /** A task is put into an agent's queue. */
  send: (agent: string): string => `send ${agent}`,
  /** One attempt at a task, from lease to settlement. Attempts are siblings below the same `send`. */
  process: (agent: string): string => `process ${agent}`,
  /** The agent's own view of an attempt, from the runtime inside its container. */
  agent: (agent: string): string => `invoke_agent ${agent}`,
  /** A decision of egress, 0 ms: a root of its own, as no client says for which task it asks. */
  egress: (agent: string): string => `egress ${agent}`,
} as const

export const ATTR = {
  serviceName: 'service.name',
  serviceNamespace: 'service.namespace',
  serviceInstance: 'service.instance.id',
  serviceVersion: 'service.version',
  errorType: 'error.type',

  operation: 'gen_ai.operation.name',
  workflowName: 'gen_ai.workflow.name',
  agentName: 'gen_ai.agent.name',
  conversation: 'gen_ai.conversation.id',

  messagingSystem: 'messaging.system',
  destination: 'messaging.destination.name',
  messagingOperation: 'messaging.operation.name',
  messagingType: 'messaging.operation.type',
  messageId: 'messaging.message.id',

  project: 'agentctl.project',
  command: 'agentctl.command',
  exitCode: 'process.exit.code',
  run: 'agentctl.run.id',
  task: 'agentctl.task.id',
  taskType: 'agentctl.task.type',
  pipeline: 'agentctl.pipeline.name',
  job: 'agentctl.job.id',
  attempt: 'agentctl.job.attempt',
  waitMs: 'agentctl.job.wait_ms',
  replica: 'agentctl.replica',
  status: 'agentctl.status',

  serverAddress: 'server.address',
  serverPort: 'server.port',
  httpMethod: 'http.request.method',
  egressVerdict: 'agentctl.egress.verdict',
  egressReason: 'agentctl.egress.reason',
  egressRule: 'agentctl.egress.rule',
  egressScheme: 'agentctl.egress.scheme',
} as const

export const MESSAGING_SYSTEM = 'bullmq'

/** Values of ATTR.operation. */
export const OPERATION = { workflow: 'invoke_workflow', agent: 'invoke_agent' } as const
