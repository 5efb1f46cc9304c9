/**
 * `@agentctl/cli/client`: work for a project's agents, from an application. `agentctl proxy --socket PATH` or `--port PORT` makes the
 * place that it connects to.
 */
import { Agent } from 'node:http'
import { ControlClient } from './client.ts'
import type { ClientOptions, Transport } from './send.ts'

export { ControlClient, type DeadLetterFilter, type DeadLetterPage, type RunFilter, type RunPage } from './client.ts'
export type { ClientOptions } from './send.ts'
export { AgentctlError } from '../errors.ts'
export type {
  ApprovalView,
  ArtifactView,
  AttemptView,
  DeadLetter,
  DeadLetterSummary,
  Explanation,
  JobView,
  Json,
  ReplicaView,
  RunExplanation,
  RunEvent,
  RunSummary,
  RunView,
  SubmitOptions,
  SubmitReply,
  SubmitRequest,
  TaskView,
  WorkError,
  WorkStatus,
} from '../../spec/protocol.ts'

/** `socket`: a path, of `agentctl proxy --socket`. `url` and `token`: what `agentctl proxy --port` prints. */
export type ConnectOptions = ClientOptions & ({ readonly socket: string } | { readonly url: string; readonly token: string })

/** Opens nothing yet: the first call does, and the connection is kept for the next ones. Close it at the end. */
export function connect(options: ConnectOptions): ControlClient {
  return new ControlClient(transport(options), options)
}

function transport(options: ConnectOptions): Transport {
  // Long waits and streams hold one each.
  const agent = new Agent({ keepAlive: true, maxFreeSockets: 8 })
  if ('socket' in options) {
    return { agent, place: { socketPath: options.socket }, headers: { host: 'localhost' }, name: `the gateway behind ${options.socket}` }
  }
  const url = new URL(options.url)
  if (url.protocol !== 'http:') throw new TypeError(`url must begin with http://, got "${options.url}"`)
  const place = { host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port: url.port === '' ? 80 : Number(url.port) }
  return { agent, place, headers: { authorization: `Bearer ${options.token}` }, name: `the gateway behind ${url.origin}` }
}
