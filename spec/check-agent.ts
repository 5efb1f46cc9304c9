/** Checks of agents alone: what they may reach, as whom they run, what they are given of the host. */
import { posix } from 'node:path'
import { checkReadable } from './check-secrets.ts'
import { type Checking, requireDeclared } from './checking.ts'
import { PROXY_VARIABLES } from './egress.ts'
import { forbiddenHostPath } from './host-paths.ts'
import type { Agent } from './model.ts'
import { AGENT_ENV } from './protocol.ts'
import { didYouMean, known } from './suggest.ts'

/** Where the folder of a module is mounted. */
const MODULE_TARGET = '/app'
const TOKEN = posix.basename(AGENT_ENV.tokenFile)
const OURS: readonly string[] = Object.values(AGENT_ENV).filter((name) => name.startsWith('AGENTCTL_'))

export function checkAgent(agent: Agent, checking: Checking): void {
  const { report, at } = checking
  const path = `agents.${agent.name}`
  const what = `agent "${agent.name}"`
  for (const [index, name] of agent.delegates_to.entries()) requireDeclared(checking, `${path}.delegates_to.${index}`, 'agents', name, what)
  for (const [index, name] of agent.uses.entries()) checkUse(`${path}.uses.${index}`, name, what, checking)
  for (const [index, name] of (agent.egress ?? []).entries()) requireDeclared(checking, `${path}.egress.${index}`, 'egress', name, what)
  checkUser(agent, path, what, checking)
  checkReadable(agent, path, what, checking)
  for (const [index, mount] of agent.mounts.entries()) {
    const place = at(`${path}.mounts.${index}`)
    const why = mount.type === 'bind' ? forbiddenHostPath(mount.source) : null
    if (why !== null && mount.type === 'bind')
      report('AG3001', place, `${what} must not have "${mount.source}" of the host: ${why}`, {
        help: 'mount a folder that holds only what the agent needs',
      })
    if (/^\/(proc|sys|dev)(\/|$)/.test(mount.target))
      report('AG3001', place, `${what} must not have a mount at "${mount.target}"`, { help: 'choose another target' })
    if (agent.handler.kind === 'module' && (mount.target === MODULE_TARGET || mount.target.startsWith(`${MODULE_TARGET}/`)))
      report('AG2003', place, `${MODULE_TARGET} of ${what} holds the folder of its module`, {
        help: 'choose another target',
        notes: [{ message: 'the module is named here', span: at(`${path}.handler`) }],
      })
  }
  if (agent.handler.kind === 'module') {
    const why = forbiddenHostPath(posix.dirname(agent.handler.path))
    if (why !== null)
      report(
        'AG3001',
        at(`${path}.handler.module`),
        `the folder of the module, "${posix.dirname(agent.handler.path)}", is mounted into ${what}: ${why}`,
        { help: 'put the module into a folder of its own' },
      )
  }
  for (const [index, use] of agent.secrets.entries())
    if (use.target === TOKEN)
      report('AG2003', at(`${path}.secrets.${index}`), `the file name "${TOKEN}" is that of the agent's own token`, {
        help: 'give the secret another target',
      })
  for (const name of Object.keys(agent.environment))
    if (OURS.includes(name) || (agent.egress !== undefined && PROXY_VARIABLES.includes(name)))
      report('AG2003', at(`${path}.environment.${name}`), `the variable ${name} of ${what} is set by agentctl`, { help: 'remove it' })
}

function checkUse(path: string, name: string, what: string, { project, report, at, declared }: Checking): void {
  if (declared('services', name)) return
  if (declared('agents', name))
    return report('AG2001', at(path), `${what} uses "${name}", which is an agent: \`uses\` names services`, {
      help: 'to hand it work, name it under delegates_to',
    })
  const names = Object.keys(project.services)
  report('AG2001', at(path), `${what} uses "${name}", which is not declared`, { help: didYouMean(name, names) ?? known('services', names) })
}

function checkUser(agent: Agent, path: string, what: string, { report, at }: Checking): void {
  if (agent.user === null) return
  const [, uid, gid] = /^(\d+):(\d+)$/.exec(agent.user) ?? []
  const place = at(`${path}.user`)
  const help = 'leave the key out (10001:10001), or write a uid from 1 on'
  if (uid === undefined || gid === undefined)
    return report('AG3001', place, `the user of ${what} has to be numeric (uid or uid:gid): a name means what the image says`, { help })
  if (Number(uid) === 0) report('AG3001', place, `${what} must not run as root (uid 0)`, { help })
  else if (Number(gid) === 0) report('AG3001', place, `${what} must not run in the group of root (gid 0)`, { help })
  if (Math.max(Number(uid), Number(gid)) > 2_147_483_647)
    report('AG1005', place, `the user of ${what} is out of range: ids end at 2147483647`)
}
