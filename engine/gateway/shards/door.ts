/**
 * Where the first of several gateways asks another: its control API, below /control/ of the port that agents use. Whoever has not the
 * token, or does not come by the control network, on which no agent is, finds that there is no such thing.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { isPeerToken } from '../../tokens.ts'
import { sendError, sendJson, urlOf } from '../http.ts'
import { type Find, type Kind, KINDS } from './find.ts'

export const PREFIX = '/control'

export interface DoorOptions {
  readonly key: string
  readonly project: string
  /** The control network. */
  readonly subnet: () => string
  readonly control: Server
  readonly find: Find
  /** For what the first gateway says of all. */
  readonly health: () => unknown
  readonly log: (message: string) => void
}

export function door({
  key,
  project,
  subnet,
  control,
  find,
  health,
  log,
}: DoorOptions): (from: IncomingMessage, to: ServerResponse) => boolean {
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    try {
      const { searchParams } = urlOf(request, 'http://gateway')
      const kind = searchParams.get('kind') as Kind
      if (!KINDS.includes(kind)) return sendJson(response, 400, '{}')
      sendJson(response, 200, JSON.stringify({ found: await find(kind, searchParams.get('name') ?? '') }))
    } catch (error) {
      sendError(response, error, 'AG5002', log)
    }
  }
  return (request, response) => {
    const { url = '', headers, socket } = request
    if (!url.startsWith(`${PREFIX}/`) || !isWithin(subnet(), socket.remoteAddress)) return false
    if (!isPeerToken(key, project, (headers.authorization ?? '').replace(/^Bearer /, ''))) return false
    request.url = url.slice(PREFIX.length)
    if (request.url === '/health') sendJson(response, 200, JSON.stringify(health()))
    else if (request.url.startsWith('/find?')) void answer(request, response)
    else control.emit('request', request, response)
    return true
  }
}

/** Our subnets are /24 (engine/subnets.ts). */
export function isWithin(subnet: string, address: string | undefined): boolean {
  const net = subnet.split('.').slice(0, 3).join('.')
  const from = (address ?? '').replace(/^::ffff:/, '')
  return subnet.endsWith('/24') && from.split('.').length === 4 && from.startsWith(`${net}.`)
}
