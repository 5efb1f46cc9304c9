/** The flags that every verb takes, before or after the verb. */
import { type Command, Option } from 'commander'
import { usage } from './failure.ts'

export type Format = 'text' | 'json'
export type Progress = 'auto' | 'tty' | 'plain' | 'json' | 'quiet'
export interface Globals {
  readonly files: readonly string[]
  readonly project_name: string | null
  readonly project_directory: string | null
  readonly env_files: readonly string[]
  readonly format: Format
  readonly quiet: boolean
  readonly progress: Progress
}

const collect = (value: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), value]
const FORMATS: readonly string[] = ['text', 'json'] satisfies Format[]
const PROGRESS: readonly string[] = ['auto', 'tty', 'plain', 'json', 'quiet'] satisfies Progress[]

/** `shortFile`: false where the verb has a -f of its own (logs --follow). */
export function addGlobals(command: Command, { hidden, shortFile }: { hidden: boolean; shortFile: boolean }): Command {
  const options = [
    new Option(
      `${shortFile ? '-f, ' : ''}--file <path>`,
      'project file (default: agents.yaml, agents.yml or agentfile.yaml, here or in a parent folder)',
    ).argParser(collect),
    new Option('-p, --project-name <name>', 'project name; without a file, it addresses a project that is up'),
    new Option('--project-directory <path>', 'folder that relative paths start from (default: the folder of the file)'),
    new Option('--profile <name>', 'not built yet').hideHelp(),
    new Option('--env-file <path>', 'file of variables for ${…} in the project file (default: .env)').argParser(collect),
    new Option('--format <format>', 'form of the result: text or json'),
    new Option('--quiet', 'no progress; where a verb lists, names only'),
    new Option('--progress <form>', 'form of the progress on stderr: auto, tty, plain, json or quiet'),
  ]
  for (const option of options) command.addOption(hidden ? option.hideHelp() : option)
  return command
}

type Given = { readonly [name: string]: unknown }

/** What stands after the verb wins; files add up. */
export function readGlobals(before: Given, after: Given): Globals {
  const given = { ...before, ...after }
  if (given['profile'] !== undefined) throw usage('--profile is not built yet', 'Remove the flag; a later version supports profiles.')
  const files = [before['file'], after['file']].flat().filter((it) => typeof it === 'string')
  if (files.length > 1) throw usage(`-f was given ${files.length} times; several files are not merged yet`, 'Give one file.')
  return {
    files,
    project_name: text(given['projectName']),
    project_directory: text(given['projectDirectory']),
    env_files: [before['envFile'], after['envFile']].flat().filter((it) => typeof it === 'string'),
    format: oneOf('--format', given['format'] ?? 'text', FORMATS) as Format,
    quiet: given['quiet'] === true,
    progress: oneOf('--progress', given['progress'] ?? 'auto', PROGRESS) as Progress,
  }
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null)

function oneOf(flag: string, value: unknown, allowed: readonly string[]): string {
  if (typeof value === 'string' && allowed.includes(value)) return value
  throw usage(`${flag} expects one of ${allowed.join(', ')}, got "${String(value)}"`)
}

/** For errors of the command line itself, which come before the flags are parsed. */
export function wantsJson(args: readonly string[]): boolean {
  const end = args.indexOf('--')
  const own = end < 0 ? args : args.slice(0, end)
  return own.some((arg, index) => arg === '--format=json' || (arg === '--format' && own[index + 1] === 'json'))
}
