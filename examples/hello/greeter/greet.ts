import type { Context } from '@agentctl/cli/agent'

interface Input {
  readonly name: string
  /** What `uname -s; id -u` printed. */
  readonly machine: string
}

export default async (input: Input, ctx: Context): Promise<{ readonly greeting: string; readonly attempt: number }> => {
  const [system, uid] = input.machine.trim().split('\n')
  ctx.progress(`greeting ${input.name}`)
  return { greeting: `Hello ${input.name}, from user ${uid} on ${system}`, attempt: ctx.task.attempt }
}
