/** Ports of the host that a plan would publish and that somebody else listens on: told before anything is made. */
import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import type { Desired } from './desired.ts'
import { AgentctlError } from './errors.ts'
import type { Observed } from './observe.ts'
import type { Plan } from './plan.ts'
import type { ContainerSpec } from './ports.ts'

type Port = ContainerSpec['ports'][number]

/** Only where the engine is on this machine. The engine has the last word: what it refuses later is AG4004 as well. */
export async function requirePorts(plan: Plan, desired: Desired, observed: Observed): Promise<void> {
  const starts = new Set(plan.steps.flatMap(({ operation }) => (operation.op === 'start-container' ? [operation.container] : [])))
  // What the project publishes now is its own: it may be about to move from one container to another.
  const own = new Set(observed.containers.flatMap((container) => container.published ?? []))
  for (const { spec } of desired.containers) {
    if (!starts.has(spec.name)) continue
    for (const port of spec.ports) {
      if (port.host_port === 0 || own.has(`${port.host_port}/${port.protocol}`) || !(await isTaken(port))) continue
      throw new AgentctlError('AG4004', `port ${port.host_ip}:${port.host_port}/${port.protocol} for ${spec.name} is in use on this host`, {
        hint: 'Choose another host port, or stop what listens there (`ss -lntup` shows it). Nothing was changed.',
      })
    }
  }
}

/** Any other failure (no right to a low port, an address of another machine) is for the engine to judge. */
function isTaken({ host_ip, host_port, protocol }: Port): Promise<boolean> {
  return new Promise((resolve) => {
    const judge = (error: NodeJS.ErrnoException): void => resolve(error.code === 'EADDRINUSE')
    if (protocol === 'udp') {
      const socket = createSocket(host_ip.includes(':') ? 'udp6' : 'udp4')
      socket.once('error', judge)
      socket.bind({ address: host_ip, port: host_port, exclusive: true }, () => socket.close(() => resolve(false)))
    } else {
      const server = createServer()
      server.once('error', judge)
      server.listen({ host: host_ip, port: host_port, exclusive: true }, () => server.close(() => resolve(false)))
    }
  })
}
