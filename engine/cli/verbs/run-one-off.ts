import { runOneOff } from '../../one-off.ts'
import { usage } from '../failure.ts'
import { write } from '../io.ts'
import type { Session } from '../session.ts'
import { workOptions } from '../submit-options.ts'
import { type Call, flag, values } from '../verb.ts'

const HOW = 'agentctl run --agent AGENT -- COMMAND ARGUMENT...'

/** `run --agent AGENT -- CMD`: its streams are ours, its exit code too; with --format json they are fields of one document, as with `exec`. */
export async function runOneOffVerb(session: Session, call: Call, agent: string): Promise<number> {
  const command = call.args[0] === '--' ? call.args.slice(1) : call.args
  if (command.length === 0) throw usage('run --agent expects a command after --', HOW)
  if (values(call, 'input').length > 0) throw usage('--input is for pipelines, not for run --agent', HOW)
  if (Object.keys(workOptions(call)).length > 0)
    throw usage('--priority, --delay, --key and --timeout are for pipelines, not for run --agent', HOW)
  if (flag(call, 'detach')) throw usage('--detach is for pipelines, not for run --agent', HOW)
  const project = await session.project()
  const { requireProject } = await import('../existing.ts')
  await requireProject(await session.verbs(), project)
  const { io, out, signal } = session
  const said: { readonly [stream in 'stdout' | 'stderr']: Buffer[] } = { stdout: [], stderr: [] }
  const { container, exit_code } = await runOneOff({
    runtime: await session.runtime(),
    signal,
    project,
    agent,
    command,
    output: async (stream, data) => (out.json ? void said[stream].push(data) : await write(io[stream], data)),
  })
  if (out.json) {
    const [stdout, stderr] = [said.stdout, said.stderr].map((chunks) => Buffer.concat(chunks).toString('utf8'))
    await out.print({ container, exit_code, stdout, stderr }, () => '')
  }
  return exit_code
}
