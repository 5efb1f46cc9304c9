/** With several gateways each counts for itself: what one has to count for the whole project cannot be asked for. */
import type { Checking } from './checking.ts'
import { gatewaysOf } from './model.ts'

export function checkGateways({ project, report, at, written }: Checking): void {
  const gateways = gatewaysOf(project)
  if (gateways === 1) return
  const here = { message: `the project has ${gateways} gateways`, span: at('gateway.replicas') }
  const refuse = (path: string, what: string): void =>
    report('AG2006', at(path), `${what} is counted by one gateway, and the project has ${gateways}: none knows what the others hand out`, {
      help: 'remove it, or set gateway.replicas to 1',
      notes: [here],
    })
  if (project.broker.concurrency !== null) refuse('broker.concurrency', 'concurrency of the broker')
  for (const agent of Object.values(project.agents)) {
    const path = `agents.${agent.name}`
    if (agent.work.total !== null) refuse(`${path}.concurrency.total`, `concurrency.total of agent "${agent.name}"`)
    if (agent.work.key !== null) refuse(`${path}.concurrency.key`, `concurrency.key of agent "${agent.name}"`)
    if (agent.work.rate !== null) refuse(`${path}.rate_limit`, `rate_limit of agent "${agent.name}"`)
    if (agent.image !== null || agent.handler.kind === 'image')
      report(
        'AG2006',
        at(written(`${path}.image`) ? `${path}.image` : path),
        `agent "${agent.name}" has an image of its own, which may know one gateway only, and the project has ${gateways}`,
        { help: 'remove the image, or set gateway.replicas to 1', notes: [here] },
      )
  }
}
