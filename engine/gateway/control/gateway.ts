/** The gateway itself: its health, its replicas, and what the controller and the CLI tell it. */
import type { Proof, ReplicaView } from '../../../spec/protocol.ts'
import { readBody } from '../http.ts'
import { type Call, type Kit, send, waitOf, wrong } from './call.ts'

const MAX_TRACES_BYTES = 67_108_864

export interface Health {
  readonly ok: boolean
  readonly broker: boolean
  readonly problem: { readonly code: string; readonly message: string } | null
  readonly project: string
  readonly broker_loss: unknown
}

export const healthOf = ({ broker, config, records }: Pick<Kit, 'broker' | 'config' | 'records'>): Health => ({
  ok: true,
  broker: broker.connected,
  problem: broker.connected ? null : broker.problem,
  project: config.project.name,
  broker_loss: records.loss,
})

export async function health(kit: Kit, call: Call): Promise<void> {
  send(call, healthOf(kit))
}

export async function reload({ config }: Kit, call: Call): Promise<void> {
  await config.reload()
  send(call, {})
}

/** A replica whose posture is not proved gets no work. */
export async function prove({ dispatcher }: Kit, call: Call): Promise<void> {
  const { proofs } = call.body as { readonly proofs: readonly Proof[] }
  for (const { agent, replica, proved } of proofs) dispatcher.prove(agent, replica, proved)
  send(call, {})
}

export async function traces(kit: Kit, call: Call): Promise<void> {
  const { request } = call
  kit.traces.forward(await readBody(request, MAX_TRACES_BYTES), request.headers['content-type'] ?? 'application/json')
  send(call, {})
}

/** With `connected=agent:replica,…`: held until all of these are, or the time is over. */
export async function replicas(kit: Kit, call: Call): Promise<void> {
  send(call, { replicas: await replicasOf(kit, call) })
}

export async function replicasOf({ dispatcher }: Kit, call: Call): Promise<readonly ReplicaView[]> {
  const { url, signal } = call
  const wait = waitOf(call)
  const known = dispatcher.replicas
  const wanted = (url.searchParams.get('connected') ?? '')
    .split(',')
    .filter((it) => it !== '')
    .map((text) => {
      const at = text.lastIndexOf(':')
      const replica = Number(text.slice(at + 1))
      if (at < 1 || !Number.isInteger(replica)) throw wrong(`connected must be AGENT:REPLICA,…, got "${text.slice(0, 100)}"`)
      return { agent: text.slice(0, at), replica }
    })
  const all = (): boolean => wanted.every((it) => known.connected(it.agent, it.replica))
  if (wanted.length > 0 && wait > 0 && !all()) {
    const done = Promise.withResolvers<void>()
    const timer = setTimeout(done.resolve, wait)
    const stop = known.watch(() => all() && done.resolve())
    signal.addEventListener('abort', () => done.resolve(), { once: true })
    await done.promise
    clearTimeout(timer)
    stop()
  }
  return url.searchParams.get('unproved') === '1' ? known.views().filter((it) => it.unproved) : known.views()
}
