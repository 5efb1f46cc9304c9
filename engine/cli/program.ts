/** Every verb with its arguments, flags and help. Nothing here does anything: a verb's code is loaded when it is called. */
import { Command, Option } from 'commander'
import { type HelpText, HELP, ROOT_HELP } from './help.ts'
import { addGlobals } from './globals.ts'
import { usage } from './failure.ts'
import type { Call, Run } from './verb.ts'

/** The verb that was asked for, ready to run. */
export interface Chosen {
  readonly verb: string
  readonly call: Call
  readonly run: () => Promise<Run>
  readonly options: { readonly before: { readonly [name: string]: unknown }; readonly after: { readonly [name: string]: unknown } }
}

type Choose = (chosen: Chosen) => void
interface VerbSpec {
  readonly name: string
  readonly run: () => Promise<Run>
  readonly define?: (command: Command) => Command
  /** false: -f is the verb's own. */
  readonly shortFile?: boolean
  readonly hidden?: boolean
}

const collect = (text: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), text]
const dryRun = (command: Command): Command => command.option('--dry-run', 'show what would be done and change nothing')
const scaleFlag = (command: Command): Command =>
  command.addOption(new Option('--scale <agent=count>', 'number of replicas of an agent or service').argParser(collect))
const planFlags = (command: Command): Command =>
  scaleFlag(command)
    .option('--force-recreate', 'recreate containers whose configuration did not change')
    .option('--remove-orphans', 'remove containers of agents and services that left the file')

const VERBS: readonly VerbSpec[] = [
  {
    name: 'init',
    run: async () => (await import('./verbs/init.ts')).init,
    define: (it) => it.argument('[folder]', 'where to write it', '.'),
  },
  { name: 'config', run: async () => (await import('./verbs/config.ts')).config },
  {
    name: 'plan',
    run: async () => (await import('./verbs/plan.ts')).plan,
    define: (it) => planFlags(it).option('--exit-code', 'exit 4 when there are changes'),
  },
  {
    name: 'up',
    run: async () => (await import('./verbs/up.ts')).up,
    define: (it) =>
      planFlags(dryRun(it))
        .option('-d, --detach', 'return once everything is ready, instead of following the logs')
        .option('--wait', 'wait until everything is ready and healthy; implies --detach')
        .option('--wait-timeout <seconds>', 'longest time to wait for that'),
  },
  {
    name: 'down',
    run: async () => (await import('./verbs/down.ts')).down,
    define: (it) =>
      dryRun(it)
        .option('-v, --volumes', 'remove the named volumes too: data, queue and results')
        .option('-t, --timeout <seconds>', 'time to stop before it is killed'),
  },
  {
    name: 'scale',
    run: async () => (await import('./verbs/scale.ts')).scale,
    define: (it) => dryRun(it).argument('<agent=count...>', 'agents or services and their number of replicas'),
  },
  {
    name: 'start',
    run: async () => (await import('./verbs/start-stop.ts')).start,
    define: (it) => it.argument('[names...]', 'agents, services or containers (default: all)'),
  },
  {
    name: 'stop',
    run: async () => (await import('./verbs/start-stop.ts')).stop,
    define: (it) => it.argument('[names...]', 'agents, services or containers (default: all)'),
  },
  {
    name: 'restart',
    run: async () => (await import('./verbs/start-stop.ts')).restart,
    define: (it) => it.argument('[names...]', 'agents, services or containers (default: all)'),
  },
  {
    name: 'ps',
    run: async () => (await import('./verbs/ps.ts')).ps,
    define: (it) => it.option('-a, --all', 'also containers that ended well (exit code 0)').option('-q', 'names only'),
  },
  {
    name: 'logs',
    shortFile: false,
    run: async () => (await import('./verbs/logs.ts')).logs,
    define: (it) =>
      it
        .argument('[names...]', 'agents, services, containers, or parts of ours such as agentctl-gateway')
        .option('-f, --follow', 'go on with what comes')
        .option('-n, --tail <lines>', 'the last lines of each container (default: all)')
        .option('-t, --timestamps', 'show when each line was written')
        .option('--since <time>', 'lines since a time like 2026-01-02T13:23:37Z or a duration like 10m')
        .option('--no-log-prefix', 'leave out the name of the container'),
  },
  {
    name: 'exec',
    run: async () => (await import('./verbs/exec.ts')).exec,
    define: (it) =>
      it
        .argument('<name>', 'agent, service or container')
        .argument('<command...>', 'command and its arguments')
        .option('-T, --no-tty', 'no terminal, also where stdin and stdout are one')
        .option('-u, --user <user>', 'run as this user')
        .option('-w, --workdir <path>', 'run in this folder')
        .addOption(new Option('-e, --env <name=value>', 'set an environment variable').argParser(collect))
        .option('--index <number>', 'which replica')
        .passThroughOptions(),
  },
  {
    name: 'cp',
    run: async () => (await import('./verbs/cp.ts')).cp,
    define: (it) =>
      it.argument('<source>', 'PATH or NAME:PATH').argument('<target>', 'NAME:PATH or PATH').option('--index <number>', 'which replica'),
  },
  {
    name: 'task',
    run: async () => (await import('./verbs/task.ts')).task,
    define: (it) =>
      it
        .argument('<agent>', 'the agent that gets it')
        .argument('<json>', 'its input; "-" reads it from stdin')
        .option('--detach', 'return once it is queued')
        .option('--type <type>', 'type of the task', 'task'),
  },
  {
    name: 'run',
    run: async () => (await import('./verbs/run.ts')).run,
    define: (it) =>
      it
        .argument('[pipeline]', 'a pipeline of the file')
        .argument('[command...]', 'with --agent: the command, after --')
        .addOption(new Option('--input <name=value>', 'an input of the pipeline').argParser(collect))
        .option('--detach', 'return once it is queued')
        .option('--agent <agent>', 'run a command in a new container of this agent, which goes when it ends'),
  },
  {
    name: 'runs',
    run: async () => (await import('./verbs/runs.ts')).runs,
    define: (it) =>
      it
        .argument('<what>', 'ls, show, wait, cancel or logs')
        .argument('[run]', 'id of the run')
        .option('--follow', 'logs: go on until the run has ended'),
  },
  { name: 'doctor', run: async () => (await import('./verbs/doctor.ts')).doctor },
  {
    name: 'errors',
    run: async () => (await import('./verbs/errors.ts')).errors,
    define: (it) => it.argument('[code]', 'a code such as AG4001 (default: all)'),
  },
  { name: 'version', run: async () => (await import('./verbs/version.ts')).version },
]

/** Promised by the design, built by later versions. */
const LATER = ['dlq', 'trace', 'audit', 'reach'] as const

export function makeProgram(choose: Choose): Command {
  const program = addGlobals(new Command('agentctl'), { hidden: false, shortFile: true })
    .description('Compose for AI agents: one agents.yaml becomes hardened containers, queued work and one trace per run.')
    .usage('[flags] VERB')
    .version('', '-V, --version', 'print the version')
    .enablePositionalOptions()
    .addHelpText('after', ROOT_HELP)
  // The real version is printed by the verb; commander would need it now.
  program.on('option:version', () => undefined)
  for (const spec of VERBS) addVerb(program, spec, choose)
  for (const name of LATER) {
    const command = program.command(name, { hidden: true }).allowUnknownOption().allowExcessArguments().helpOption(false)
    command.action(() => {
      throw usage(`\`agentctl ${name}\` is not built yet`, 'A later version brings it; `agentctl --help` lists the verbs of this one.')
    })
  }
  return program
}

function addVerb(program: Command, { name, run, define, shortFile = true, hidden = false }: VerbSpec, choose: Choose): void {
  const help: HelpText = HELP[name] ?? { summary: name, examples: [] }
  const command = program.command(name, { hidden }).description(help.summary)
  define?.(command)
  addGlobals(command, { hidden: true, shortFile })
  const examples = help.examples.map((it) => `  $ ${it}\n`).join('')
  command.addHelpText(
    'after',
    `${help.detail === undefined ? '' : `\n${help.detail}\n`}${examples === '' ? '' : `\nExamples:\n${examples}`}\nThe flags of \`agentctl --help\` are taken here too.`,
  )
  command.action(() => {
    const after = command.opts()
    choose({ verb: name, run, call: { args: command.args, options: after }, options: { before: program.opts(), after } })
  })
}

export const VERB_NAMES: readonly string[] = VERBS.map((it) => it.name)
