/** Builders that hide noise: a project, a record, what an engine that has all of it would list. */
import { hashOf } from '../../engine/canonical.ts'
import { type Desired, desired, networkNames } from '../../engine/desired.ts'
import { LABEL } from '../../engine/names.ts'
import type { Observed } from '../../engine/observe.ts'
import type { ObservedContainer } from '../../engine/ports.ts'
import type { ProjectRecord } from '../../engine/record.ts'
import { allocateSubnets } from '../../engine/subnets.ts'
import { type Agent, DEFAULT_ARTIFACTS, DEFAULT_BROKER, DEFAULT_WORK, DEFAULTS, type Project, type Service } from '../../spec/model.ts'

const workload = {
  image: null,
  command: null,
  entrypoint: null,
  environment: {},
  replicas: 1,
  depends_on: {},
  healthcheck: null,
  mounts: [],
  working_dir: null,
  labels: {},
  secrets: [],
} as const

export const agent = (name: string, extra: Partial<Agent> = {}): Agent => ({
  ...workload,
  name,
  mem_limit: DEFAULTS.agent.mem_limit,
  cpus: 1,
  pids_limit: 256,
  user: null,
  role: 'worker',
  handler: { kind: 'exec' },
  concurrency: 1,
  work: DEFAULT_WORK,
  delegates_to: [],
  uses: [],
  isolation: { reuse: 'role' },
  ready_timeout_ms: DEFAULTS.agent.ready_timeout_ms,
  ...extra,
})
export const service = (name: string, extra: Partial<Service> = {}): Service => ({
  ...workload,
  name,
  image: 'img',
  mem_limit: DEFAULTS.service.mem_limit,
  cpus: 1,
  pids_limit: 512,
  user: null,
  ports: [],
  ...extra,
})

export const project = (parts: { agents?: readonly Agent[]; services?: readonly Service[]; volumes?: readonly string[] }): Project => ({
  name: 'p',
  agents: Object.fromEntries((parts.agents ?? []).map((it) => [it.name, it])),
  services: Object.fromEntries((parts.services ?? []).map((it) => [it.name, it])),
  secrets: {},
  volumes: Object.fromEntries((parts.volumes ?? []).map((name) => [name, { name }])),
  pipelines: {},
  telemetry: null,
  broker: DEFAULT_BROKER,
  artifacts: DEFAULT_ARTIFACTS,
})

export const record = (of: Project, extra: Partial<ProjectRecord> = {}): ProjectRecord => ({
  version: 1,
  written_by: '0.0.0',
  revision: 1,
  project: of,
  scale: {},
  stopped: [],
  images: { engine: 'engine:1', agent: 'agent:1' },
  data_root: '/data',
  engine_socket: '/var/run/docker.sock',
  subnets: allocateSubnets({ networks: networkNames(of), chosen: {}, taken: [] }),
  ...extra,
})

export const want = (of: Project, extra: Partial<ProjectRecord> = {}): Desired => desired(record(of, extra), '{}')

export const nothing: Observed = { containers: [], networks: [], volumes: [] }

/** An engine on which all of it runs. `change` edits a container, null takes it away. */
export function running(all: Desired, change: { readonly [name: string]: Partial<ObservedContainer> | null } = {}): Observed {
  return {
    networks: all.networks.map((network) => ({
      id: hashOf(network.name),
      name: network.name,
      labels: network.labels,
      subnets: [network.subnet],
      internal: network.internal,
    })),
    volumes: all.volumes.map((volume) => ({ name: volume.name, labels: volume.labels, mountpoint: `/data/volumes/${volume.name}/_data` })),
    containers: all.containers.flatMap(({ spec }) => {
      const edit = change[spec.name]
      if (edit === null) return []
      const container: ObservedContainer = {
        id: hashOf(spec.name),
        name: spec.name,
        image: spec.image,
        labels: spec.labels,
        status: 'running',
        health: spec.healthcheck === null ? null : 'healthy',
        exit_code: null,
        created_at: '',
        status_text: 'Up',
        networks: Object.fromEntries(spec.endpoints.map((endpoint) => [endpoint.network, endpoint.address ?? '10.0.0.9'])),
        ...edit,
      }
      return [container]
    }),
  }
}

export const relabel = (all: Desired, name: string, hash: string): Partial<ObservedContainer> => ({
  labels: { ...all.containers.find((it) => it.spec.name === name)?.spec.labels, [LABEL.configHash]: hash },
})
