/** The engine's list answers → what the core observes. Pure. */
import type { ContainerStatus, ObservedContainer, ObservedNetwork, ObservedVolume } from '../../ports.ts'
import { fields, list, number, text, texts } from '../../fields.ts'

const STATUSES: ReadonlySet<string> = new Set(['created', 'running', 'restarting', 'paused', 'exited', 'dead', 'removing'])
const isStatus = (value: string): value is ContainerStatus => STATUSES.has(value)

export function observedContainer(value: unknown): ObservedContainer {
  const entry = fields(value)
  const state = text(entry['State'])
  const statusText = text(entry['Status'])
  const endpoints = Object.entries(fields(fields(entry['NetworkSettings'])['Networks']))
  return {
    id: text(entry['Id']),
    // A linked container also has names like "/other/alias".
    name: (
      list(entry['Names'])
        .map(text)
        .find((name) => name.lastIndexOf('/') === 0) ?? ''
    ).slice(1),
    image: text(entry['Image']),
    labels: texts(entry['Labels']),
    status: isStatus(state) ? state : 'dead',
    health: healthOf(statusText),
    exit_code: exitCodeOf(statusText),
    created_at: new Date(number(entry['Created']) * 1000).toISOString(),
    status_text: statusText,
    networks: Object.fromEntries(endpoints.map(([name, endpoint]) => [name, text(fields(endpoint)['IPAddress'])])),
    published: list(entry['Ports'])
      .map(fields)
      .filter((port) => number(port['PublicPort']) > 0)
      .map((port) => `${number(port['PublicPort'])}/${text(port['Type'])}`),
  }
}

/** "Up 3 minutes (healthy)", "Up 2 seconds (health: starting)". */
export function healthOf(statusText: string): ObservedContainer['health'] {
  const health = /\((?:health: )?(starting|healthy|unhealthy)\)/.exec(statusText)?.[1]
  return health === 'starting' || health === 'healthy' || health === 'unhealthy' ? health : null
}

/** "Exited (137) 3 minutes ago", "Restarting (1) 2 seconds ago". */
export function exitCodeOf(statusText: string): number | null {
  const code = /^(?:Exited|Restarting) \((\d+)\)/.exec(statusText)?.[1]
  return code === undefined ? null : Number(code)
}

export function observedNetwork(value: unknown): ObservedNetwork {
  const entry = fields(value)
  return {
    id: text(entry['Id']),
    name: text(entry['Name']),
    labels: texts(entry['Labels']),
    subnets: list(fields(entry['IPAM'])['Config'])
      .map((config) => text(fields(config)['Subnet']))
      .filter((subnet) => subnet !== ''),
    internal: entry['Internal'] === true,
  }
}

export function observedVolume(value: unknown): ObservedVolume {
  const entry = fields(value)
  return { name: text(entry['Name']), labels: texts(entry['Labels']), mountpoint: text(entry['Mountpoint']) }
}
