/** The engine's event stream: JSON objects, one a line, cut anywhere by the transport. */
import { StringDecoder } from 'node:string_decoder'
import type { EngineEvent } from '../../ports.ts'
import { fields, number, text } from '../../fields.ts'

/** What is asked of the engine; execs (a health check is one) would be most of the traffic. */
export const EVENT_FILTER: readonly string[] = ['create', 'start', 'die', 'destroy', 'oom', 'rename', 'update', 'health_status']

/** Attributes of the event itself, among which the engine mixes the container's labels. */
const OWN_ATTRIBUTES = new Set(['name', 'image', 'exitCode', 'signal', 'oldName', 'execDuration', 'execID'])

export async function* jsonLines(stream: AsyncIterable<Buffer>): AsyncGenerator<unknown> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of stream) {
    const lines = (rest + decoder.write(chunk)).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.trim() !== '') yield JSON.parse(line)
  }
  if (rest.trim() !== '') yield JSON.parse(rest)
}

/** null: an event that does not matter here. */
export function engineEvent(value: unknown): EngineEvent | null {
  const event = fields(value)
  const actor = fields(event['Actor'])
  const attributes = fields(actor['Attributes'])
  const action = actionOf(text(event['Action']))
  if (action === null) return null
  const labels = Object.entries(attributes).filter(
    (pair): pair is [string, string] => !OWN_ATTRIBUTES.has(pair[0]) && typeof pair[1] === 'string',
  )
  const exitCode = attributes['exitCode']
  return {
    action,
    container: text(actor['ID']),
    name: text(attributes['name']),
    labels: Object.fromEntries(labels),
    exit_code: typeof exitCode === 'string' ? Number(exitCode) : null,
    time_ms: Math.floor(number(event['timeNano']) / 1e6),
  }
}

function actionOf(action: string): EngineEvent['action'] | null {
  switch (action) {
    case 'create':
    case 'start':
    case 'die':
    case 'destroy':
    case 'oom':
    case 'rename':
    case 'update':
      return action
    case 'health_status: healthy':
      return 'healthy'
    case 'health_status: unhealthy':
      return 'unhealthy'
    default:
      return null
  }
}
