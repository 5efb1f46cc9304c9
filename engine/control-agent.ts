/** Connections to the control socket of a project's gateway through the engine: who may make them is who may use the engine. */
import { Agent } from 'node:http'
import type { Duplex } from 'node:stream'
import { execSocket } from './control-socket.ts'
import { PATHS, trustedName } from './names.ts'
import type { ContainerRuntime } from './ports.ts'

export interface PoolOptions {
  readonly maxFreeSockets?: number
  readonly maxSockets?: number
}

/** An http.Agent whose sockets are exec streams: `socat` inside the container joins them to the control socket. */
export function controlAgent(runtime: ContainerRuntime, project: string, signal: AbortSignal, pool: PoolOptions = {}): Agent {
  const container = trustedName(project, 'gateway')
  const agent = new Agent({ keepAlive: true, maxFreeSockets: 2, ...pool })
  const connect = (_options: unknown, done: (error: Error | null, socket?: Duplex) => void): undefined => {
    runtime.execStream(container, ['socat', '-', `UNIX-CONNECT:${PATHS.controlSocket}`], {}, signal).then(
      (stream) => done(null, execSocket(stream)),
      (error) => done(error instanceof Error ? error : new Error(String(error))),
    )
  }
  // Node calls it with a callback and takes any Duplex; the types know net.Socket alone.
  return Object.assign(agent, { createConnection: connect as unknown as Agent['createConnection'] })
}
