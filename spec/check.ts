/** What the form cannot say: names that must exist, claims that collide, cycles, settings that would weaken an agent. Over the normalised project. */
import { checkAgent } from './check-agent.ts'
import { checkGateways } from './check-gateways.ts'
import { checkPipeline } from './check-pipeline.ts'
import { checkPlainKeys, checkSecretUses } from './check-secrets.ts'
import { type Checking, checkCycles, requireDeclared, unique } from './checking.ts'
import type { Edges } from './cycles.ts'
import type { Project, Workload } from './model.ts'
import type { Span } from './source.ts'
import { didYouMean, known } from './suggest.ts'

/** Names of our own parts and volumes (engine/names.ts): containers are PROJECT-NAME-N, volumes PROJECT_NAME. */
const OUR_PARTS = ['gateway', 'egress', 'controller', 'broker', 'secrets'].map((part) => `agentctl-${part}`)
const OUR_VOLUMES = ['agentctl-state', 'agentctl-secrets', 'agentctl-broker']

export function check(checking: Checking): void {
  const { project, report, at } = checking
  if (checking.clean && Object.keys(project.agents).length + Object.keys(project.services).length === 0)
    report('AG1007', at(''), 'nothing to run: the file has neither agents nor services', {
      help: 'declare an agent: agents: { worker: { replicas: 2 } }',
    })
  for (const name of Object.keys(project.services)) {
    if (Object.hasOwn(project.agents, name))
      report('AG2003', at(`services.${name}`), `"${name}" is an agent and a service: they share one name space`, {
        help: 'rename one of them',
        notes: [{ message: 'the agent is declared here', span: at(`agents.${name}`) }],
      })
  }
  for (const [section, workload] of workloads(project)) checkWorkload(`${section}.${workload.name}`, section, workload, checking)
  for (const agent of Object.values(project.agents)) checkAgent(agent, checking)
  for (const key of ['password', 'ca'] as const) {
    const name = project.broker[key]
    if (name !== null) requireDeclared(checking, `broker.${key}.secret`, 'secrets', name, `${key} of the broker`)
  }
  checkPlainKeys(checking)
  checkGateways(checking)
  checkVolumes(checking)
  checkPorts(checking)
  checkCycles(
    dependencyEdges(project),
    'depends on',
    (from, to) => at(`${Object.hasOwn(project.agents, from) ? 'agents' : 'services'}.${from}.depends_on.${to}`),
    report,
  )
  for (const pipeline of Object.values(project.pipelines)) checkPipeline(pipeline, checking)
}

const workloads = (project: Project): readonly (readonly ['agents' | 'services', Workload])[] => [
  ...Object.values(project.agents).map((agent) => ['agents', agent] as const),
  ...Object.values(project.services).map((service) => ['services', service] as const),
]

function checkWorkload(path: string, section: 'agents' | 'services', workload: Workload, checking: Checking): void {
  const { report, at } = checking
  const what = `${section === 'agents' ? 'agent' : 'service'} "${workload.name}"`
  if (OUR_PARTS.includes(workload.name))
    report('AG2003', at(path), `the name "${workload.name}" is that of a part of agentctl's`, {
      help: 'rename it; "gateway" or "broker" alone are free',
    })
  for (const name of Object.keys(workload.depends_on)) checkDependency(`${path}.depends_on.${name}`, what, name, workload, checking)
  for (const [index, mount] of workload.mounts.entries()) {
    if (mount.type === 'volume') requireDeclared(checking, `${path}.mounts.${index}`, 'volumes', mount.source, what)
    if (!mount.target.startsWith('/') || mount.target === '/')
      report('AG1005', at(`${path}.mounts.${index}`), `expected an absolute path below "/" as the target, got "${mount.target}"`)
  }
  unique(
    workload.mounts.map((mount) => mount.target),
    (index) => at(`${path}.mounts.${index}`),
    (target) => `two mounts of ${what} have the target "${target}"`,
    report,
  )
  checkSecretUses(path, what, workload, checking)
  for (const label of Object.keys(workload.labels)) {
    if (label === '') report('AG1005', at(`${path}.labels`), `a label of ${what} has no name`)
    if (label.startsWith('agentctl.'))
      report('AG2003', at(`${path}.labels.${label}`), `the label "${label}" of ${what} is one of agentctl's own`, {
        help: 'choose a name that does not start with "agentctl."',
      })
  }
}

function checkDependency(path: string, what: string, name: string, workload: Workload, checking: Checking): void {
  const { project, report, at } = checking
  if (!checking.declared('agents', name) && !checking.declared('services', name)) {
    const names = [...Object.keys(project.agents), ...Object.keys(project.services)].filter((each) => each !== workload.name)
    report('AG2001', at(path), `${what} depends on "${name}", which is not declared`, {
      help: didYouMean(name, names) ?? known('agents and services', names),
    })
    return
  }
  const condition = workload.depends_on[name]?.condition
  const isAgent = Object.hasOwn(project.agents, name)
  const service = Object.hasOwn(project.services, name) ? project.services[name] : undefined
  if (condition === 'service_completed_successfully' && isAgent)
    report('AG2005', at(path), `${what} waits until agent "${name}" has completed, but an agent never ends`, {
      help: 'use condition: service_healthy, which waits until it is connected',
    })
  // An agent is healthy when it is connected to the gateway; a service needs a check.
  if (condition !== 'service_healthy' || service === undefined) return
  const off = service.healthcheck?.test[0] === 'NONE'
  if (!off && (service.healthcheck !== null || checking.written(`services.${name}.healthcheck`))) return
  report(
    'AG2005',
    at(path),
    `${what} waits until service "${name}" is healthy, but ${off ? 'its healthcheck is off' : 'it has no healthcheck'}`,
    {
      help: `give "${name}" a healthcheck, or use condition: service_started`,
      notes: [{ message: `"${name}" is declared here`, span: at(`services.${name}`) }],
    },
  )
}

function checkVolumes({ project, report, at }: Checking): void {
  for (const name of Object.keys(project.volumes)) {
    if (OUR_VOLUMES.includes(name))
      report('AG2003', at(`volumes.${name}`), `the name "${name}" is that of a volume of agentctl's`, { help: 'rename it' })
  }
}

function checkPorts({ project, report, at }: Checking): void {
  const taken: { readonly key: string; readonly ip: string; readonly place: Span }[] = []
  for (const service of Object.values(project.services)) {
    for (const [index, port] of service.ports.entries()) {
      if (port.host_port === 0) continue
      const place = at(`services.${service.name}.ports.${index}`)
      const key = `${port.host_port}/${port.protocol}`
      const any = (ip: string): boolean => ip === '0.0.0.0' || ip === '::'
      const other = taken.find((each) => each.key === key && (each.ip === port.host_ip || any(each.ip) || any(port.host_ip)))
      if (other !== undefined)
        report('AG2003', place, `port ${key} of this machine is published twice`, {
          help: 'choose another host port',
          notes: [{ message: 'the other is here', span: other.place }],
        })
      if (service.replicas > 1)
        report(
          'AG2003',
          place,
          `the ${service.replicas} replicas of service "${service.name}" cannot all publish port ${key} of this machine`,
          { help: `write "${port.container_port}" alone: each replica gets a free port` },
        )
      taken.push({ key, ip: port.host_ip, place })
    }
  }
}

function dependencyEdges(project: Project): Edges {
  return new Map(workloads(project).map(([, workload]) => [workload.name, Object.keys(workload.depends_on)]))
}
