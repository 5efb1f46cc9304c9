/** One call of the command: its flags, its streams, and the connections that verbs share. Adapters are loaded when first used. */
import type { Project } from '../../spec/model.ts'
import type { Source } from '../../spec/source.ts'
import type { ControlClient } from '../control.ts'
import { DiagnosticsError } from '../errors.ts'
import type { ContainerRuntime } from '../ports.ts'
import type { ProjectRecord } from '../record.ts'
import { Redactor } from '../redact.ts'
import type { VerbContext } from '../verbs.ts'
import type { Globals } from './globals.ts'
import type { Interrupts } from './interrupts.ts'
import { hasColor, type Io } from './io.ts'
import { makeOutput, type Output } from './output.ts'
import { progressPrinter, type ProgressPrinter } from './progress.ts'
import type { LoadedProject } from './project.ts'

export type Loaded = LoadedProject & { readonly project: Project }

export interface Session {
  readonly io: Io
  readonly globals: Globals
  readonly signal: AbortSignal
  readonly interrupts: Interrupts
  readonly out: Output
  readonly progress: ProgressPrinter
  /** Takes the secrets out of a text that this command has read. */
  readonly redact: (text: string) => string
  /** What goes on after an interruption, and how to follow it; told on stderr. */
  afterInterrupt: string | null
  /** The checked project of the file; its warnings are told once. Problems are thrown. */
  load(): Promise<Loaded>
  /** Texts of the files that were loaded, for excerpts. */
  sources(): ReadonlyMap<string, Source>
  /** The name of the project: from -p, the environment or the file. */
  project(): Promise<string>
  runtime(): Promise<ContainerRuntime>
  /** `signal`: another one than the session's. */
  verbs(signal?: AbortSignal): Promise<VerbContext>
  /** A connection to the gateway of a project that exists, with its controller alive. */
  control(project: string): Promise<{ readonly control: ControlClient; readonly record: ProjectRecord }>
  close(): void
}

export function openSession(io: Io, globals: Globals, interrupts: Interrupts): Session {
  const { signal } = interrupts
  const redactor = new Redactor()
  const progress = progressPrinter(io, globals, redactor.redact)
  const closers: (() => void)[] = []
  let connecting: Promise<ContainerRuntime> | null = null
  let read: Promise<LoadedProject> | null = null
  let found: LoadedProject | null = null

  const runtime = (): Promise<ContainerRuntime> => {
    connecting ??= import('../runtimes/docker/connect.ts').then(({ connectDocker }) =>
      connectDocker({ environment: io.environment, signal }),
    )
    return connecting
  }
  const readOnce = async (): Promise<LoadedProject> => {
    const { loadProject } = await import('./project.ts')
    found = loadProject(io, globals)
    await tellWarnings(found, io, globals)
    return found
  }
  const load = async (): Promise<Loaded> => {
    read ??= readOnce()
    const loaded = await read
    if (loaded.project === null) throw new DiagnosticsError(loaded.diagnostics)
    return { ...loaded, project: loaded.project }
  }
  const verbs = async (other?: AbortSignal): Promise<VerbContext> => ({
    runtime: await runtime(),
    signal: other ?? signal,
    emit: progress.emit,
    environment: found?.environment ?? io.environment,
    learn: (values) => redactor.learn(values),
  })

  return {
    io,
    globals,
    signal,
    interrupts,
    out: makeOutput(io, globals, redactor.redact),
    redact: redactor.redact,
    progress,
    afterInterrupt: null,
    load,
    sources: () => found?.sources ?? new Map(),
    project: async () => {
      if (globals.project_name === null && (io.environment['AGENTCTL_PROJECT_NAME'] ?? '') === '') return (await load()).project.name
      const { givenName } = await import('./project.ts')
      return givenName(globals, io.environment) ?? (await load()).project.name
    },
    runtime,
    verbs,
    control: async (project) => {
      const [{ openControl }, { requireProject }] = await Promise.all([import('../control.ts'), import('./existing.ts')])
      const record = await requireProject(await verbs(), project)
      const control = await openControl(await runtime(), project, signal)
      closers.push(() => control.close())
      return { control, record }
    },
    close: () => {
      for (const close of closers) close()
    },
  }
}

async function tellWarnings({ project, diagnostics, sources }: LoadedProject, io: Io, globals: Globals): Promise<void> {
  const warnings = diagnostics.filter((it) => it.severity === 'warning')
  if (project === null || warnings.length === 0 || globals.quiet) return
  const { problemsView, renderProblems } = await import('./views/problems.ts')
  io.stderr.write(
    renderProblems(problemsView(warnings, io.cwd), sources, { color: hasColor(io, io.stderr), tty: io.stderr.isTTY === true, cwd: io.cwd }),
  )
}
