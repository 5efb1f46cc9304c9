/** The command: arguments in, exit code out. Every error becomes a document or a text here, and nowhere else. */
import { CommanderError } from 'commander'
import { AgentctlError, DiagnosticsError, EXIT } from '../errors.ts'
import { asFailure, exitCode, failureView, interruption, renderFailure, stacks, usage } from './failure.ts'
import { readGlobals, wantsJson } from './globals.ts'
import { listenToInterrupts } from './interrupts.ts'
import { flush, hasColor, type Io, processIo, write } from './io.ts'
import { makeOutput } from './output.ts'
import { type Chosen, makeProgram } from './program.ts'
import { openSession, type Session } from './session.ts'

/** The whole process: ends it, so that no idle connection keeps it alive. */
export async function main(args: readonly string[]): Promise<number> {
  const io = processIo()
  endOnBrokenPipe(io)
  const code = await runCommand(args, io)
  await Promise.all([flush(io.stdout), flush(io.stderr)])
  io.exit(code)
  return code
}

/** `agentctl logs | head`: the reader has enough, which is no failure. */
function endOnBrokenPipe(io: Io): void {
  io.stdout.on('error', (error: NodeJS.ErrnoException) => io.exit(error.code === 'EPIPE' ? EXIT.done : EXIT.failed))
  io.stderr.on('error', () => undefined)
}

export async function runCommand(args: readonly string[], io: Io): Promise<number> {
  const interrupts = listenToInterrupts(io)
  let session: Session | null = null
  try {
    const chosen = await parse(args, io)
    if (typeof chosen === 'number') return chosen
    const globals = readGlobals(chosen.options.before, chosen.options.after)
    session = openSession(io, globals, interrupts)
    const run = await chosen.run()
    const code = await run(session, chosen.call)
    if (interrupts.signal.aborted && code === EXIT.interrupted) await tellWhatGoesOn(session, io)
    return code
  } catch (error) {
    // After an abort, whatever broke was broken by it.
    const failure = interrupts.signal.aborted && !(error instanceof DiagnosticsError) ? interruption(error) : asFailure(error)
    await report(failure, io, wantsJson(args), session)
    if (failure instanceof AgentctlError && failure.code === 'AG7002' && session !== null) await tellWhatGoesOn(session, io)
    if ((io.environment['AGENTCTL_DEBUG'] ?? '') !== '') await write(io.stderr, (session?.redact ?? same)(stacks(error)))
    return exitCode(failure)
  } finally {
    session?.close()
    interrupts.dispose()
  }
}

const same = (text: string): string => text

async function report(failure: AgentctlError | DiagnosticsError, io: Io, json: boolean, session: Session | null): Promise<void> {
  const out = makeOutput(io, { format: json ? 'json' : 'text' }, session?.redact ?? same)
  if (failure instanceof AgentctlError) return await out.problem(failureView(failure), renderFailure)
  const { problemsView, renderProblems } = await import('./views/problems.ts')
  const options = { color: hasColor(io, io.stderr), tty: io.stderr.isTTY === true, cwd: io.cwd }
  await out.problem(problemsView(failure.diagnostics, io.cwd), (view) => renderProblems(view, session?.sources() ?? new Map(), options))
}

async function tellWhatGoesOn(session: Session, io: Io): Promise<void> {
  if (session.afterInterrupt !== null && !session.globals.quiet) await write(io.stderr, `${session.afterInterrupt}\n`)
}

/** An exit code when commander has said all there is to say (help), else the verb. */
async function parse(args: readonly string[], io: Io): Promise<Chosen | number> {
  let chosen: Chosen | null = null
  let help = ''
  const program = makeProgram((it) => {
    chosen = it
  })
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({
      writeOut: (text) => void (help += text),
      writeErr: () => undefined,
      getOutHelpWidth: () => io.stdout.columns ?? 100,
    })
  }
  if (args.length === 0) {
    await write(io.stderr, program.helpInformation())
    return EXIT.usage
  }
  try {
    program.parse([...args], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.code === 'commander.version') return await versionVerb(args, io)
    if (error.exitCode === 0 || error.code === 'commander.help') {
      await write(io.stdout, help)
      return EXIT.done
    }
    throw commanderFailure(error)
  }
  return chosen ?? EXIT.usage
}

const versionVerb = async (args: readonly string[], io: Io): Promise<Chosen | number> =>
  await parse(['version', ...(wantsJson(args) ? ['--format', 'json'] : [])], io)

/** "error: unknown command 'upp'\n(Did you mean up?)" → our message, and the suggestion as the hint. */
function commanderFailure(error: CommanderError): AgentctlError {
  const text = error.message.replace(/^error: /, '')
  const suggestion = /\(Did you mean (?:one of )?(.+)\?\)/.exec(text)?.[1]
  const message = text.replace(/\s*\(Did you mean .*\?\)/s, '').replaceAll("'", '"')
  return usage(message, suggestion === undefined ? 'See `agentctl --help`.' : `Did you mean ${suggestion}?`)
}
