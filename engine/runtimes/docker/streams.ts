/** What goes on for as long as somebody listens: events and logs. */
import { AgentctlError } from '../../errors.ts'
import { LABEL } from '../../names.ts'
import { fields, text } from '../../fields.ts'
import type { ContainerRuntime, EngineEvent, NetworkEvent } from '../../ports.ts'
import type { Connection } from './connection.ts'
import { EVENT_FILTER, engineEvent, jsonLines } from './events.ts'
import { interrupted, toAgentctlError } from './failure.ts'
import { type Frame, FrameReader } from './frames.ts'

type StreamCalls = Pick<ContainerRuntime, 'events' | 'networkEvents' | 'logs' | 'attach'>

export function streamCalls(connection: Connection): StreamCalls {
  return {
    async *events(project, since, signal): AsyncGenerator<EngineEvent> {
      const doing = 'report events'
      const filters = JSON.stringify({ type: ['container'], event: EVENT_FILTER, label: [`${LABEL.project}=${project}`] })
      const stream = await connection.stream({ doing, method: 'GET', path: '/events', query: { since: since.toFixed(6), filters }, signal })
      try {
        for await (const line of jsonLines(stream)) {
          const event = engineEvent(line)
          if (event !== null) yield event
        }
      } catch (error) {
        throw signal.aborted ? interrupted(doing, signal.reason) : toAgentctlError(error, doing, connection.endpoint)
      }
      if (signal.aborted) throw interrupted(doing, signal.reason)
      throw new AgentctlError('AG4001', `The engine at ${connection.endpoint} closed its stream of events`, {
        hint: 'Start it again; `agentctl doctor` shows what was tried.',
      })
    },
    async *networkEvents(since, signal): AsyncGenerator<NetworkEvent> {
      const doing = 'report events of networks'
      const filters = JSON.stringify({ type: ['network'], event: ['connect', 'disconnect'] })
      const stream = await connection.stream({ doing, method: 'GET', path: '/events', query: { since: since.toFixed(6), filters }, signal })
      try {
        for await (const line of jsonLines(stream)) {
          const attributes = fields(fields(fields(line)['Actor'])['Attributes'])
          yield { container: text(attributes['container']), network: text(attributes['name']) }
        }
      } catch (error) {
        throw signal.aborted ? interrupted(doing, signal.reason) : toAgentctlError(error, doing, connection.endpoint)
      }
    },
    async *logs(container, options, signal): AsyncGenerator<Frame> {
      const doing = `read the logs of ${container}`
      const query = {
        stdout: true,
        stderr: true,
        follow: options.follow,
        timestamps: options.timestamps,
        tail: options.tail === null ? 'all' : String(options.tail),
        ...(options.since === undefined ? {} : { since: options.since }),
      }
      const stream = await connection.stream({ doing, method: 'GET', path: `/containers/${container}/logs`, query, signal })
      yield* frames(stream, doing, signal)
    },
    // Not the logs: the engine's follower loses lines where the log file is rotated.
    async attach(container, signal) {
      const doing = `attach to ${container}`
      const query = { stream: true, stdout: true, stderr: true }
      return frames(
        await connection.stream({ doing, method: 'POST', path: `/containers/${container}/attach`, query, signal }),
        doing,
        signal,
      )
    },
  }

  async function* frames(stream: AsyncIterable<Buffer>, doing: string, signal: AbortSignal): AsyncGenerator<Frame> {
    const reader = new FrameReader()
    try {
      for await (const chunk of stream) yield* reader.read(chunk)
    } catch (error) {
      throw signal.aborted ? interrupted(doing, signal.reason) : toAgentctlError(error, doing, connection.endpoint)
    }
  }
}
