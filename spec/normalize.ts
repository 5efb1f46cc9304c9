/** Tree → Project: every way of writing a thing becomes one. Expects a tree that `checkForm` has been through; what is left of a broken part is skipped. */
import { posix } from 'node:path'
import type { Agent, Handler, Project, Service } from './model.ts'
import { DEFAULTS, MAX_GATEWAYS } from './model.ts'
import { artifactsOf, brokerOf } from './broker.ts'
import { type Context, names, pathOf } from './context.ts'
import { egressOf } from './egress.ts'
import { hardeningOf } from './hardening.ts'
import { mountsOf, portsOf } from './mounts.ts'
import { pipelineOf } from './pipeline.ts'
import { secretOf, secretsOf } from './secrets.ts'
import { child, entriesOf, type MapNode, type Node, textOf } from './tree.ts'
import { duration } from './values.ts'
import { workOf } from './work-policy.ts'
import { integer, readOr, workload } from './workload.ts'

export function normalize(root: Node, context: Context, projectName: string | undefined): Project {
  const section = <T>(key: string, make: (name: string, node: MapNode, at: string) => T): { readonly [name: string]: T } =>
    Object.fromEntries(entriesOf(child(root, key)).map(([name, entry]) => [name, make(name, asMap(entry.value), `${key}.${name}`)]))
  const endpoint = textOf(child(child(root, 'telemetry'), 'endpoint'))
  const egress = egressOf(child(root, 'egress'), context)
  const gateways = integer(child(child(root, 'gateway'), 'replicas'), 1, 1, MAX_GATEWAYS, context)
  return {
    name: nameOf(root, context, projectName),
    agents: section('agents', (name, node, at) => agentOf(name, node, at, context)),
    services: section('services', (name, node, at) => serviceOf(name, node, at, context)),
    secrets: section('secrets', (name, node) => secretOf(name, node, context)),
    volumes: section('volumes', (name) => ({ name })),
    pipelines: section('pipelines', (name, node, at) => pipelineOf(name, node, at, context)),
    telemetry: endpoint === '' ? null : { endpoint },
    broker: brokerOf(child(root, 'broker'), context),
    artifacts: artifactsOf(child(root, 'artifacts'), context),
    ...(Object.keys(egress).length === 0 ? {} : { egress }),
    ...(gateways === 1 ? {} : { gateway: { replicas: gateways } }),
  }
}

const asMap = (node: Node): MapNode => (node.kind === 'map' ? node : { kind: 'map', entries: new Map(), span: node.span })

const PROJECT_NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/
const NAME_HELP = 'use lower-case letters, digits, "_" and "-", starting with a letter or digit, at most 63 characters'

/** -p, else `name`, else the folder's name made to fit, as Compose does. */
function nameOf(root: Node, context: Context, projectName: string | undefined): string {
  if (projectName !== undefined) {
    if (!PROJECT_NAME.test(projectName))
      context.report('AG1005', null, `the project name ${JSON.stringify(projectName)} does not fit`, { help: NAME_HELP })
    return projectName
  }
  const node = child(root, 'name')
  const given = textOf(node)
  if (node !== undefined && given !== '') {
    if (!PROJECT_NAME.test(given)) context.report('AG1005', node.span, 'the project name does not fit', { help: NAME_HELP })
    return given
  }
  const folder = posix
    .basename(context.folder)
    .toLowerCase()
    .replaceAll(/[^a-z0-9_-]/g, '')
    .replace(/^[_-]+/, '')
    .slice(0, 63)
  if (folder === '')
    context.report('AG1007', root.span, `the folder's name "${posix.basename(context.folder)}" makes no project name`, {
      help: 'add the key name at the top of the file, or use -p',
    })
  return folder
}

function agentOf(name: string, node: MapNode, at: string, context: Context): Agent {
  const common = workload(name, node, at, context, DEFAULTS.agent)
  const list = (key: string): readonly string[] => names(child(node, key), `${at}.${key}`, context)
  const delegates = list('delegates_to')
  const egress = list('egress')
  const timeout = child(node, 'ready_timeout')
  const role = textOf(child(node, 'role'))
  const hardening = hardeningOf(node, 'agents', name, context)
  return {
    ...common,
    ...(hardening === undefined ? {} : { hardening }),
    // Docker puts a bare uid into group 0.
    user: userOf(child(node, 'user')) ?? DEFAULTS.agent.user,
    mounts: mountsOf(node, at, context),
    secrets: secretsOf(node, at, context),
    role: role === 'orchestrator' || (role === '' && delegates.length > 0) ? 'orchestrator' : 'worker',
    handler: handlerOf(child(node, 'handler'), common.image, context),
    delegates_to: delegates,
    uses: list('uses'),
    ...(egress.length === 0 ? {} : { egress }),
    isolation: { reuse: 'role' },
    ...workOf(node, context),
    ready_timeout_ms:
      timeout === undefined
        ? DEFAULTS.agent.ready_timeout_ms
        : readOr(duration(textOf(timeout)), timeout, context, DEFAULTS.agent.ready_timeout_ms),
  }
}

function userOf(node: Node | undefined): string | null {
  const text = textOf(node)
  if (text === '') return null
  return /^\d+$/.test(text) ? `${text}:${text}` : text
}

function handlerOf(node: Node | undefined, image: string | null, context: Context): Handler {
  const module = child(node, 'module')
  if (module !== undefined && textOf(module) !== '') return { kind: 'module', path: pathOf(textOf(module), context, module.span) }
  return node === undefined && image !== null ? { kind: 'image' } : { kind: 'exec' }
}

function serviceOf(name: string, node: MapNode, at: string, context: Context): Service {
  const user = child(node, 'user')
  const hardening = hardeningOf(node, 'services', name, context)
  return {
    ...workload(name, node, at, context, DEFAULTS.service),
    ...(hardening === undefined ? {} : { hardening }),
    user: textOf(user) === '' ? null : textOf(user),
    mounts: mountsOf(node, at, context),
    secrets: secretsOf(node, at, context),
    ports: portsOf(node, at, context),
  }
}
