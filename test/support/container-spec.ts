/** A container of an agent's posture, small and short-lived; tests change what they look at. */
import { LABEL } from '../../engine/names.ts'
import type { ContainerSpec } from '../../engine/ports.ts'

export function containerSpec(changes: Partial<ContainerSpec> & { readonly project?: string } = {}): ContainerSpec {
  const { project = 'p', labels, ...rest } = changes
  return {
    name: `${project}-a-1`,
    kind: 'agent',
    image: 'agentctl/agent',
    entrypoint: ['sleep'],
    command: ['infinity'],
    environment: {},
    labels: { [LABEL.project]: project, [LABEL.kind]: 'agent', ...labels },
    user: '10001:10001',
    working_dir: '/tmp',
    stop_grace_s: 1,
    healthcheck: null,
    endpoints: [],
    extra_hosts: {},
    dns: [],
    ports: [],
    binds: [],
    volumes: [],
    tmpfs: [{ target: '/tmp', size: 1_048_576, exec: false, mode: 0o1777 }],
    read_only: true,
    cap_drop: ['ALL'],
    cap_add: [],
    no_new_privileges: true,
    seccomp: null,
    masked_paths: null,
    readonly_paths: null,
    sysctls: {},
    ulimits: [],
    mem_limit: 67_108_864,
    cpus: 1,
    pids_limit: 64,
    oom_score_adj: 500,
    init: true,
    restart: 'no',
    ...rest,
  }
}
