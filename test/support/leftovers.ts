import { createRequire } from 'node:module'

interface Engine {
  findEngine(): Promise<{ host: string | undefined }>
  request(host: string, target: string): Promise<{ status: number; body: string }>
}

interface Labelled {
  readonly Id?: string
  readonly Name?: string
  readonly Names?: readonly string[]
  readonly Labels: Readonly<Record<string, string>> | null
}

export interface Leftover {
  readonly kind: 'container' | 'network' | 'volume'
  readonly id: string
  readonly name: string
  readonly project: string
}

const engine = createRequire(import.meta.url)('../../.ci/engine.cjs') as Engine
const LABEL = 'agentctl.project'

/** What the engine holds of projects whose name starts with `prefix`; nothing where there is no engine. */
export async function leftovers(prefix = 't-'): Promise<Leftover[]> {
  const { host } = await engine.findEngine()
  if (host === undefined) return []
  const filter = encodeURIComponent(JSON.stringify({ label: [LABEL] }))
  const list = async (target: string): Promise<unknown> => JSON.parse((await engine.request(host, target)).body)
  const containers = (await list(`/containers/json?all=1&filters=${filter}`)) as Labelled[]
  const networks = (await list(`/networks?filters=${filter}`)) as Labelled[]
  const volumes = ((await list(`/volumes?filters=${filter}`)) as { Volumes: Labelled[] | null }).Volumes ?? []
  const found = [
    ...containers.map((thing) => toLeftover('container', thing)),
    ...networks.map((thing) => toLeftover('network', thing)),
    ...volumes.map((thing) => toLeftover('volume', thing)),
  ]
  return found.filter((thing) => thing.project.startsWith(prefix))
}

function toLeftover(kind: Leftover['kind'], thing: Labelled): Leftover {
  const name = thing.Name ?? thing.Names?.[0]?.replace(/^\//, '') ?? '?'
  return { kind, id: `${kind}:${thing.Id ?? name}`, name, project: thing.Labels?.[LABEL] ?? '' }
}
