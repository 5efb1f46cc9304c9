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

const workFlags = (command: Command): Command =>
  command
    .option('--priority <number>', 'from -9 to 9, higher first (default: 0); children have it too')
    .option('--delay <duration>', 'start no earlier than in so long: 30s, 5m, 1h30m')
    .option('--key <key>', 'submit nothing while a run with this key is open: that run is followed')
    .option('--key-ttl <duration>', 'with --key: also for so long after that run was submitted')
    .option('--timeout <duration>', 'from the submit to the end, waits and retries included; then it fails')
const lsFlags = (command: Command): Command =>
  command.option('-q', 'ls: ids only').option('-n, --limit <count>', 'ls: at most so many (default: 100)')

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
      workFlags(it)
        .argument('<agent>', 'the agent that gets it')
        .argument('<json>', 'its input; "-" reads it from stdin')
        .option('--detach', 'return once it is queued')
        .option('--type <type>', 'type of the task', 'task'),
  },
  {
    name: 'run',
    run: async () => (await import('./verbs/run.ts')).run,
    define: (it) =>
      workFlags(it)
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
      lsFlags(it)
        .argument('<what>', 'ls, show, wait, cancel, logs or retry')
        .argument('[run]', 'id of the run')
        .option('--status <status>', 'ls: only runs of this status')
        .option('--agent <agent>', 'ls: only runs with a job of this agent')
        .option('--before <run>', 'ls: only runs older than this one')
        .option('--follow', 'logs: go on until the run has ended')
        .option('--all', 'retry: also the tasks that completed')
        .option('--detach', 'retry: return once it is queued'),
  },
  {
    name: 'explain',
    run: async () => (await import('./verbs/explain.ts')).explain,
    define: (it) => it.argument('<task>', 'id of a task, or of a run: all of its tasks that wait'),
  },
  {
    name: 'dlq',
    run: async () => (await import('./verbs/dlq.ts')).dlq,
    define: (it) =>
      lsFlags(it)
        .argument('<what>', 'ls, show, retry or drop')
        .argument('[task...]', 'ids of dead letters')
        .option('--agent <agent>', 'ls, drop --all: only those of this agent')
        .option('--input <json>', 'retry: another input')
        .option('--edit', 'retry: change the input in $VISUAL or $EDITOR first')
        .option('--detach', 'retry: return once it is queued')
        .option('--all', 'drop: all of them'),
  },
  {
    name: 'approvals',
    run: async () => (await import('./verbs/approvals.ts')).approvals,
    define: (it) => it.argument('<what>', 'ls').option('--all', 'also those that are decided').option('-q', 'ids only'),
  },
  {
    name: 'approve',
    run: async () => (await import('./verbs/approvals.ts')).approve,
    define: (it) => it.argument('<id>', 'id of the approval').option('--comment <text>', 'what the agent is told with it'),
  },
  {
    name: 'reject',
    run: async () => (await import('./verbs/approvals.ts')).reject,
    define: (it) => it.argument('<id>', 'id of the approval').option('--comment <text>', 'what the agent is told with it'),
  },
  {
    name: 'artifacts',
    run: async () => (await import('./verbs/artifacts.ts')).artifacts,
    define: (it) =>
      it
        .argument('<what>', 'ls or get')
        .argument('[run]', 'id of the run, or of a task of it')
        .argument('[name]', 'get: name or digest of the artifact')
        .option('-o, --output <file>', 'get: where to write it ("-": stdout; default: its name, here)')
        .option('-q', 'ls: names only'),
  },
  {
    name: 'egress',
    run: async () => (await import('./verbs/egress.ts')).egress,
    define: (it) =>
      it
        .argument('<what>', 'check or log')
        .argument('[agent]', 'check: whose rules; log: only its records')
        .argument('[url]', 'check: an address such as https://api.example.com')
        .option('--method <method>', 'check: of the request, with http:// (default: GET)')
        .option('--follow', 'log: go on with what comes')
        .option('--tail <count>', 'log: the last records only (default: all that are kept)'),
  },
  {
    name: 'proxy',
    run: async () => (await import('./verbs/proxy.ts')).proxy,
    define: (it) =>
      it
        .option('--socket <path>', 'a unix socket that only you may open')
        .option('--port [address:port]', 'a port on a loopback address (default: 127.0.0.1 and any free port)')
        .option('--token-file <path>', 'with --port: the token is read from this file, or written there if there is none'),
  },
  {
    name: 'audit',
    run: async () => (await import('./verbs/audit.ts')).audit,
    define: (it) => it.argument('[agent...]', 'agents, services, or parts of ours such as agentctl-gateway (default: all)'),
  },
  { name: 'doctor', run: async () => (await import('./verbs/doctor.ts')).doctor },
  {
    name: 'conformance',
    run: async () => (await import('./verbs/conformance.ts')).conformance,
    define: (it) =>
      it
        .argument('[command...]', 'after --: what starts the agent, or with --image its arguments')
        .option('--image <image>', 'an image of an agent; it is run by the docker client')
        .option('--input <json>', 'a task that it completes at once, with some text in it (default: one for `exec`)')
        .option('--slow <json>', 'a task that takes it a minute or longer')
        .option('--bad <json>', 'a task that it cannot do (default: null)')
        .addOption(new Option('--rule <id>', 'only this rule').argParser(collect)),
  },
  {
    name: 'errors',
    run: async () => (await import('./verbs/errors.ts')).errors,
    define: (it) => it.argument('[code]', 'a code such as AG4001 (default: all)'),
  },
  { name: 'version', run: async () => (await import('./verbs/version.ts')).version },
]

/** Promised by the design, built by later versions. */
const LATER = ['trace', 'reach'] as const

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
