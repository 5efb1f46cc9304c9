/** Finds the project as Compose does: its file here or in a parent folder, its variables, its name. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { Place } from '../../spec/diagnostic.ts'
import type { Diagnostic } from '../../spec/diagnostic.ts'
import { load } from '../../spec/load.ts'
import type { Project } from '../../spec/model.ts'
import type { Source } from '../../spec/source.ts'
import { AgentctlError, EXIT } from '../errors.ts'
import { checkProjectName } from './arguments.ts'
import { readEnvFile } from './env-file.ts'
import { usage } from './failure.ts'
import type { Globals } from './globals.ts'
import type { Io } from './io.ts'

export const FILE_NAMES: readonly string[] = ['agents.yaml', 'agents.yml', 'agentfile.yaml']

export type Environment = { readonly [name: string]: string | undefined }
export interface LoadedProject {
  /** null: see the diagnostics. */
  readonly project: Project | null
  readonly file: string
  readonly diagnostics: readonly Diagnostic[]
  readonly sources: ReadonlyMap<string, Source>
  readonly places: ReadonlyMap<string, Place>
  /** The shell's variables above those of the env files. */
  readonly environment: Environment
}

export function findFile(io: Io, globals: Globals): string {
  const [named] = globals.files
  if (named !== undefined) return resolve(io.cwd, named)
  const start = resolve(io.cwd, globals.project_directory ?? '.')
  if (!isFolder(start)) throw usage(`--project-directory ${start} is not a folder`, 'Name a folder that exists.')
  for (let folder = start; ; folder = dirname(folder)) {
    const found = FILE_NAMES.map((name) => join(folder, name)).find(existsSync)
    if (found !== undefined) return found
    if (folder === dirname(folder)) break
  }
  throw new AgentctlError('AG1009', `there is no ${FILE_NAMES.join(', ')} in ${start} or a folder above it`, {
    hint: 'Run `agentctl init`, or name the file with -f; a project that is up is addressed with -p.',
    exit: EXIT.usage,
  })
}

export function loadProject(io: Io, globals: Globals): LoadedProject {
  const file = findFile(io, globals)
  const folder = globals.project_directory === null ? dirname(file) : resolve(io.cwd, globals.project_directory)
  if (!isFolder(folder))
    throw usage(
      `${globals.project_directory === null ? '-f' : '--project-directory'}: ${folder} is not a folder`,
      'Name a folder that exists.',
    )
  const environment = readEnvironment(io, globals, folder)
  const name = givenName(globals, environment)
  const loaded = load({
    files: [file],
    folder,
    environment,
    readFile: (path) => readFileSync(path, 'utf8'),
    ...(name === null ? {} : { projectName: name }),
  })
  return { ...loaded, file, environment }
}

function readEnvironment(io: Io, { env_files }: Globals, folder: string): Environment {
  const files =
    env_files.length > 0
      ? env_files.map((it) => readEnvFile(resolve(io.cwd, it), { optional: false }))
      : [readEnvFile(join(folder, '.env'), { optional: true })]
  return Object.assign({}, ...files, io.environment) as Environment
}

/** -p, then AGENTCTL_PROJECT_NAME; null: the file or its folder names it. */
export function givenName(globals: Globals, environment: Environment): string | null {
  if (globals.project_name !== null) return checkProjectName(globals.project_name, '-p')
  const variable = environment['AGENTCTL_PROJECT_NAME'] ?? ''
  return variable === '' ? null : checkProjectName(variable, 'AGENTCTL_PROJECT_NAME')
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
