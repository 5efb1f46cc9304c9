/** What `up` asks before a project has fewer gateways: that those that go have no unfinished runs, which nobody would go on with. */
import { openControl } from './control.ts'
import { AgentctlError } from './errors.ts'
import { gatewayDoor } from './names.ts'
import type { ContainerRuntime } from './ports.ts'

interface Health {
  readonly gateways?: readonly { readonly name: string; readonly open: number | null }[]
}

export async function requireFinished(
  runtime: ContainerRuntime,
  project: string,
  before: number,
  after: number,
  signal: AbortSignal,
): Promise<void> {
  if (after >= before) return
  const control = await openControl(runtime, project, signal, { retry_ms: 2_000 })
  try {
    const { gateways = [] } = (await control.health().catch(() => ({}))) as Health
    for (let gateway = after + 1; gateway <= before; gateway++) {
      const name = gatewayDoor(gateway)
      const open = gateways.find((it) => it.name === name)?.open ?? null
      if (open === 0) continue
      throw new AgentctlError(
        'AG5006',
        open === null
          ? `${name} of project "${project}" does not answer, so nobody knows whether it has unfinished runs`
          : `${name} of project "${project}" has ${open} unfinished run(s), which no other gateway goes on with`,
        {
          hint:
            open === null
              ? `Bring it back with gateway.replicas at ${before} (\`agentctl up\`), then take it away.`
              : 'Wait for them or cancel them (`agentctl runs ls`), then `agentctl up` again.',
        },
      )
    }
  } finally {
    control.close()
  }
}
