/** The control client as the CLI and the controller use it: HTTP/1.1 over an exec stream into the gateway's container; nothing is published. */
import { ControlClient } from './client/client.ts'
import { controlAgent } from './control-agent.ts'
import type { ContainerRuntime } from './ports.ts'

export { ControlClient } from './client/client.ts'

export interface ControlOptions {
  /** How long lost connections are retried before AG5001. */
  readonly retry_ms?: number
  readonly request_timeout_ms?: number
}

/** Opens nothing yet: the exec stream is made by the first request and kept for the next ones. */
export async function openControl(
  runtime: ContainerRuntime,
  project: string,
  signal: AbortSignal,
  options: ControlOptions = {},
): Promise<ControlClient> {
  const transport = {
    agent: controlAgent(runtime, project, signal),
    place: {},
    headers: { host: 'control' },
    name: `the gateway of project "${project}"`,
  }
  return new ControlClient(transport, { signal, ...options })
}
