/** Motion without progress: the gateway takes the work away, the controller gives the replica a new process, nobody asks for either. */
import { expect, test } from 'vitest'
import { eventually } from '../support/docker.ts'
import { stack } from '../support/stack.ts'

const FILE = `
agents:
  thinker: { replicas: 2, concurrency: 2, handler: { module: ./app/handler.ts }, stall: { repeats: 5 } }
`
/** The first execution asks the same thing of the same tool for ever; its thread is alive and answers. */
const HANDLER = `
import { setTimeout as sleep } from 'node:timers/promises'
export default async (input, ctx) => {
  for (let n = 0; input.loops && ctx.task.attempt === 1; n++) {
    ctx.progress({ message: 'thinking ' + n, step: { name: 'search', tool: 'grep', args_hash: 'same' } })
    await sleep(150)
  }
  // As many steps, each of them another: a long good job is left alone.
  for (let n = 0; n < (input.steps ?? 0); n++) {
    ctx.progress({ step: { name: 'search', tool: 'grep', args_hash: 'page-' + n } })
    await sleep(50)
  }
  return { replica: process.env.AGENTCTL_REPLICA, attempt: ctx.task.attempt }
}
`
const startedAt = (inspected: unknown): string => (inspected as { State: { StartedAt: string } }).State.StartedAt

test('an agent that repeats the same step is replaced, its task is done by another, and the reason is kept', async () => {
  await using project = await stack('t-stall', { 'agents.yaml': FILE, 'app/handler.ts': HANDLER })
  const names = [1, 2].map((replica) => `${project.name}-thinker-${replica}`)
  const starts = (): Promise<string[]> => Promise.all(names.map(async (name) => startedAt(await project.runtime.inspect(name))))
  const before = await starts()
  const good = await project.submit({ agent: 'thinker', type: 'task', tasks: [{ steps: 60 }] })
  const run = await project.submit({ agent: 'thinker', type: 'task', tasks: [{ loops: true }] })

  const view = await project.ended(run)
  expect(view).toMatchObject({ status: 'completed', jobs: [{ attempts: 2, result: { attempt: 2 } }] })
  expect((await project.ended(good)).status).toBe('completed')
  const events = []
  for await (const event of project.control.events(run)) events.push(event)
  expect(events.find((it) => it.event === 'stalled')?.message).toMatch(/the same step "search" \(grep\) with the same arguments 5 times/)

  const changed = await eventually(
    async () => {
      const now = await starts()
      const found = names.filter((_, index) => now[index] !== before[index])
      return found.length > 0 ? found : null
    },
    30_000,
    'a replica with a new process',
  )
  expect(changed).toHaveLength(1)
  await eventually(
    async () => {
      const replicas = await project.control.replicas()
      return replicas.length === 2 && replicas.every((it) => it.connected && it.stalled === undefined)
    },
    30_000,
    'both replicas connected and well',
  )
}, 180_000)
