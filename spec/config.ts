/** Project → the normalised file, as `agentctl config` prints it: an agents.yaml again, with every default written out. */
import type {
  Agent,
  ArtifactSettings,
  BrokerSettings,
  EgressPolicy,
  EgressRule,
  Hardening,
  Healthcheck,
  Mount,
  Pipeline,
  Project,
  Secret,
  SecretUse,
  Service,
  Template,
  WorkPolicy,
  Workload,
} from './model.ts'
import { isReference, showReference } from './references.ts'
import { showDuration } from './values.ts'

/** In the file a "$" starts a variable. */
const text = (value: string): string => value.replaceAll('$', '$$$$')
const texts = (values: readonly string[]): readonly string[] => values.map(text)
const map = <T, U>(values: { readonly [name: string]: T }, make: (value: T) => U): { readonly [name: string]: U } =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, make(value)]))

/** Without what is null, undefined or empty. */
function compact(values: { readonly [key: string]: unknown }): { readonly [key: string]: unknown } {
  const isEmpty = (value: unknown): boolean =>
    value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0)
  return Object.fromEntries(Object.entries(values).filter(([, value]) => !isEmpty(value)))
}

export function configView(project: Project): unknown {
  return {
    name: project.name,
    ...compact({
      agents: map(project.agents, agentView),
      services: map(project.services, serviceView),
      secrets: map(project.secrets, secretView),
      volumes: map(project.volumes, () => ({})),
      egress: map(project.egress ?? {}, egressView),
      telemetry: project.telemetry === null ? null : { endpoint: text(project.telemetry.endpoint) },
      gateway: project.gateway,
      broker: brokerView(project.broker),
      artifacts: artifactsView(project.artifacts),
      pipelines: map(project.pipelines, pipelineView),
    }),
  }
}

function secretView(secret: Secret): unknown {
  if (secret.kind === 'file') return { file: text(secret.path) }
  if (secret.kind === 'environment') return { environment: secret.variable }
  return {
    command: texts(secret.argv),
    timeout: showDuration(secret.timeout_ms),
    max_size: secret.max_size,
    ...compact({ pass_env: secret.pass_env }),
    working_dir: text(secret.working_dir),
  }
}

const secretUseView = ({ source, target, uid, gid, mode }: SecretUse): unknown => ({
  source: text(source),
  target: text(target),
  ...compact({ uid, gid, mode: mode === undefined ? null : `0${mode.toString(8)}` }),
})

function workloadView(workload: Workload): { readonly [key: string]: unknown } {
  return {
    ...compact({ image: workload.image === null ? null : text(workload.image) }),
    // An empty command is not the image's command.
    ...(workload.entrypoint === null ? {} : { entrypoint: texts(workload.entrypoint) }),
    ...(workload.command === null ? {} : { command: texts(workload.command) }),
    replicas: workload.replicas,
    ...compact({
      environment: map(workload.environment, text),
      depends_on: workload.depends_on,
      healthcheck: workload.healthcheck === null ? null : healthcheckView(workload.healthcheck),
      volumes: workload.mounts.map(mountView),
      secrets: workload.secrets.map(secretUseView),
      labels: map(workload.labels, text),
      user: workload.user === null ? null : text(workload.user),
      working_dir: workload.working_dir === null ? null : text(workload.working_dir),
    }),
    mem_limit: workload.mem_limit,
    cpus: workload.cpus,
    pids_limit: workload.pids_limit,
    ...(workload.hardening === undefined ? {} : hardeningView(workload.hardening)),
  }
}

function hardeningView({ seccomp, apparmor, no_new_privileges, ...rest }: Hardening): { readonly [key: string]: unknown } {
  const options = [
    ...(seccomp === undefined ? [] : [`seccomp=${typeof seccomp === 'string' ? seccomp : text(seccomp.path)}`]),
    ...(apparmor === undefined ? [] : [`apparmor=${text(apparmor)}`]),
    ...(no_new_privileges === undefined ? [] : [`no-new-privileges:${no_new_privileges}`]),
  ]
  return {
    ...rest,
    ...(rest.runtime === undefined ? {} : { runtime: text(rest.runtime) }),
    ...(rest.sysctls === undefined ? {} : { sysctls: map(rest.sysctls, text) }),
    ...(options.length === 0 ? {} : { security_opt: options }),
  }
}

function agentView(agent: Agent): unknown {
  const handler = { exec: 'exec', image: null, module: agent.handler.kind === 'module' ? { module: text(agent.handler.path) } : null }[
    agent.handler.kind
  ]
  return {
    role: agent.role,
    ...compact({ handler }),
    ...workloadView(agent),
    ...workView(agent.work, agent.concurrency),
    ...compact({ delegates_to: agent.delegates_to, uses: agent.uses, egress: agent.egress }),
    isolation: agent.isolation,
    ready_timeout: showDuration(agent.ready_timeout_ms),
  }
}

function workView(work: WorkPolicy, perReplica: number): { readonly [key: string]: unknown } {
  const limits = compact({ total: work.total, key: work.key === null ? null : showReference({ $ref: work.key }), per_key: work.per_key })
  const { retry, timeouts, stall } = work
  const time = (ms: number | null): string | null => (ms === null ? null : showDuration(ms))
  return {
    concurrency: Object.keys(limits).length === 0 ? perReplica : { per_replica: perReplica, ...limits },
    ...compact({ rate_limit: work.rate === null ? null : { max: work.rate.max, per: showDuration(work.rate.per_ms) } }),
    retry: {
      attempts: retry.attempts,
      delay: showDuration(retry.delay_ms),
      max_delay: showDuration(retry.max_delay_ms),
      backoff: retry.backoff,
      jitter: retry.jitter,
      // No code at all is another thing than the default.
      ...(retry.on === null ? {} : { on: texts(retry.on) }),
    },
    ...compact({
      timeouts: compact({
        schedule_to_start: time(timeouts.schedule_to_start_ms),
        start_to_close: time(timeouts.start_to_close_ms),
        schedule_to_close: time(timeouts.schedule_to_close_ms),
        heartbeat: time(timeouts.heartbeat_ms),
      }),
    }),
    stall:
      stall.repeats === null && stall.steps === null && stall.tokens === null
        ? false
        : { repeats: stall.repeats ?? 0, steps: stall.steps ?? 0, tokens: stall.tokens ?? 0 },
    max_queue: work.max_queue,
  }
}

/** An empty `allow` says something: no host at all. */
const egressView = ({ allow, deny }: EgressPolicy): unknown => ({ allow: allow.map(ruleView), ...compact({ deny: deny.map(ruleView) }) })
const ruleView = ({ host, cidr, ports, scheme, methods, paths }: EgressRule): unknown =>
  compact({ host, cidr, ports, scheme, methods, paths: paths === null ? null : texts(paths) })

function brokerView(broker: BrokerSettings): unknown {
  const secret = (name: string | null): unknown => (name === null ? null : { secret: text(name) })
  return compact({
    url: broker.url === null ? null : text(broker.url),
    password: secret(broker.password),
    ca: secret(broker.ca),
    durability: broker.durability,
    concurrency: broker.concurrency,
  })
}

function artifactsView({ max_size, max_run, max_total, types, retention_ms }: ArtifactSettings): unknown {
  return {
    max_size,
    max_run,
    max_total,
    ...compact({ types: types === null ? null : texts(types) }),
    retention: showDuration(retention_ms),
  }
}

function serviceView(service: Service): unknown {
  const ports = service.ports.map((port) => ({
    target: port.container_port,
    ...(port.host_port === 0 ? {} : { published: port.host_port }),
    host_ip: port.host_ip,
    protocol: port.protocol,
  }))
  return { ...workloadView(service), ...compact({ ports }) }
}

function healthcheckView(healthcheck: Healthcheck): unknown {
  if (healthcheck.test[0] === 'NONE') return { disable: true }
  const time = (ms: number | undefined): string | null => (ms === undefined ? null : showDuration(ms))
  return compact({
    test: texts(healthcheck.test),
    interval: time(healthcheck.interval_ms),
    timeout: time(healthcheck.timeout_ms),
    start_period: time(healthcheck.start_period_ms),
    retries: healthcheck.retries,
  })
}

function mountView(mount: Mount): unknown {
  if (mount.type === 'tmpfs') return { type: 'tmpfs', target: text(mount.target), tmpfs: { size: mount.size } }
  return { type: mount.type, source: text(mount.source), target: text(mount.target), ...(mount.read_only ? { read_only: true } : {}) }
}

function pipelineView(pipeline: Pipeline): unknown {
  return {
    ...compact({
      inputs: map(pipeline.inputs, (input) => ({
        type: input.type,
        ...(input.default === undefined ? {} : { default: templateView(input.default) }),
        required: input.required,
      })),
    }),
    jobs: map(pipeline.jobs, (job) => ({
      agent: job.agent,
      ...compact({ needs: job.needs }),
      type: text(job.type),
      with: templateView(job.with),
      ...(job.foreach === null ? {} : { foreach: { in: templateView(job.foreach.in), as: job.foreach.as } }),
    })),
  }
}

function templateView(value: Template): unknown {
  if (typeof value === 'string') return text(value)
  if (value === null || typeof value !== 'object') return value
  if (isReference(value)) return showReference(value)
  if (Array.isArray(value)) return value.map(templateView)
  return map(value as { readonly [key: string]: Template }, templateView)
}
