/** Words of the help, apart from the flags. */
export interface HelpText {
  readonly summary: string
  readonly detail?: string
  readonly examples: readonly string[]
}

export const ROOT_HELP = `
Examples:
  $ agentctl init && agentctl up -d
  $ agentctl task worker '{"command": "uname -a"}'
  $ agentctl run audit --input path=.
  $ agentctl ps

Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 up but not healthy or partial, 130 interrupted.
Run 'agentctl VERB --help' for more on a verb.`

export const HELP: { readonly [verb: string]: HelpText } = {
  init: {
    summary: 'Write a commented starter project',
    detail: 'Writes agents.yaml and a handler; refuses to overwrite anything.',
    examples: ['agentctl init', 'agentctl init my-agents && cd my-agents && agentctl up -d'],
  },
  config: {
    summary: 'Check the project file and print it as it is understood',
    detail: 'All defaults are filled in and variables replaced; values of secrets are never shown. With --quiet it only checks.',
    examples: ['agentctl config', 'agentctl config --quiet && echo fine', 'agentctl config --format json'],
  },
  plan: {
    summary: 'Show what `up` would do, and why',
    detail:
      'Each line is one step: what it needs, what it does, and its cause. Nothing is changed. Secrets are read as `up` does, commands included, to see which have changed.',
    examples: ['agentctl plan', 'agentctl plan --exit-code   # 4: there are changes'],
  },
  up: {
    summary: 'Create and start the project, and wait until it is ready',
    detail:
      'Without -d it follows the logs; Ctrl-C then stops the containers. What is as the file says is left alone. Secrets are read anew each time: a changed value is exchanged while the containers run.',
    examples: ['agentctl up', 'agentctl up -d', 'agentctl up -d --scale coder=5', 'agentctl up --dry-run'],
  },
  down: {
    summary: 'Stop and remove the containers and networks of the project',
    detail: 'Named volumes stay, and with them the queue and its results, unless -v is given.',
    examples: ['agentctl down', 'agentctl down -v', 'agentctl -p research down'],
  },
  scale: { summary: 'Set the number of replicas', examples: ['agentctl scale coder=5', 'agentctl -p research scale coder=5 tester=0'] },
  start: { summary: 'Start what was stopped', examples: ['agentctl start', 'agentctl start coder'] },
  stop: {
    summary: 'Stop agents or services without removing them',
    detail: 'What was stopped here stays stopped: the controller, which restarts everything else, leaves it alone.',
    examples: ['agentctl stop', 'agentctl stop coder', 'agentctl stop coder-2'],
  },
  restart: { summary: 'Stop and start agents or services', examples: ['agentctl restart coder'] },
  ps: {
    summary: 'List the containers of the project',
    examples: ['agentctl ps', 'agentctl -p research ps --format json', 'agentctl ps -q'],
  },
  logs: {
    summary: 'Show what the containers write',
    detail: 'Without names: all agents and services. Parts of ours are shown when named. With --format json one JSON object per line.',
    examples: ['agentctl logs -f', 'agentctl logs --tail 20 coder', 'agentctl logs agentctl-gateway'],
  },
  exec: {
    summary: 'Run a command in a running container',
    detail: 'It has the sandbox of the agent: no more rights and no more network than the agent itself. Its exit code is passed on.',
    examples: [
      'agentctl exec coder sh',
      'agentctl exec -T coder cat /workspace/report.md',
      'agentctl exec --index 2 coder ls -la /workspace',
    ],
  },
  cp: {
    summary: 'Copy files between the host and a container',
    detail: 'What is copied in belongs to the user of the agent, so that it can use it.',
    examples: ['agentctl cp ./data coder:/workspace', 'agentctl cp reporter:/out/report.md .'],
  },
  task: {
    summary: 'Give one task to an agent and print its result',
    detail: 'Interrupting the command does not stop the task: follow it with `agentctl runs wait`.',
    examples: [
      `agentctl task coder '{"command": ["ls", "-la"]}'`,
      `agentctl task coder '{"command": "make"}' --detach`,
      `agentctl task coder '{"command": "make"}' --priority 5 --timeout 10m`,
      'agentctl task coder - < input.json',
    ],
  },
  run: {
    summary: 'Run a pipeline and print its result, or a command in a new container of an agent',
    detail:
      'Interrupting the command does not stop the run: follow it with `agentctl runs wait`. An input is read as JSON where its type is not string. With --agent the command has the sandbox, networks and secrets of that agent, but takes no tasks; its streams and exit code are passed on, and the container goes when it ends or is interrupted.',
    examples: [
      'agentctl run audit',
      'agentctl run audit --input path=src --input depth=3',
      'agentctl run audit --detach',
      'agentctl run audit --delay 1h --key nightly',
      'agentctl run --agent coder -- sh -c "id; ls -la /run/secrets"',
    ],
  },
  runs: {
    summary: 'List runs, show, follow, cancel or repeat one: ls, show, wait, cancel, logs, retry',
    detail:
      '`show` tells of each job how long it waited and ran, and how large its input and result are. `retry` makes a new run: of plain tasks it repeats those that did not complete (--all: every one), a pipeline runs again with the same inputs.',
    examples: [
      'agentctl runs ls',
      'agentctl runs ls --status failed --agent coder -q',
      'agentctl runs show run_01J…',
      'agentctl runs wait run_01J…',
      'agentctl runs logs --follow run_01J…',
      'agentctl runs cancel run_01J…',
      'agentctl runs retry run_01J…',
    ],
  },
  explain: {
    summary: 'Say why a task waits: which child, limit, key, need or person',
    examples: ['agentctl explain run_01J….task.0', 'agentctl explain run_01J…   # each of its tasks that wait'],
  },
  dlq: {
    summary: 'Tasks that failed for good: ls, show, retry, drop',
    detail:
      '`show` prints the input, each execution with its error and the end of its log, and the events. `retry` makes a new run of that one task; the dead letter stays until it is dropped.',
    examples: [
      'agentctl dlq ls --agent coder',
      'agentctl dlq show run_01J….task.0',
      'agentctl dlq retry run_01J….task.0',
      'agentctl dlq retry run_01J….task.0 --edit',
      `agentctl dlq retry run_01J….task.0 --input '{"command": "make test"}'`,
      'agentctl dlq drop run_01J….task.0',
      'agentctl dlq drop --all',
    ],
  },
  approvals: {
    summary: 'List what agents ask people: ls',
    detail: 'A task that asks waits, without holding a slot, until `agentctl approve` or `agentctl reject`.',
    examples: ['agentctl approvals ls', 'agentctl approvals ls --format json'],
  },
  approve: {
    summary: 'Say yes to what an agent asks',
    examples: ['agentctl approve run_01J….task.0.4b2e…', 'agentctl approve ID --comment "not on Fridays"'],
  },
  reject: { summary: 'Say no to what an agent asks', examples: ['agentctl reject run_01J….task.0.4b2e… --comment "too expensive"'] },
  artifacts: {
    summary: 'What the tasks of a run have stored: ls, get',
    detail: 'A file is written whole or not at all, once its bytes have the hash that the run names.',
    examples: [
      'agentctl artifacts ls run_01J…',
      'agentctl artifacts get run_01J… report.pdf',
      'agentctl artifacts get run_01J….scan.3 report.pdf -o third.pdf',
      'agentctl artifacts get run_01J… log.txt -o - | less',
    ],
  },
  egress: {
    summary: 'What agents may reach outside, and what they asked for: check, log',
    detail:
      '`check` decides by the rules of the file, or with -p of the project that is up, asks nobody and resolves nothing; exit 1: denied. `log` shows the decisions of the proxy: who asked for which host, the verdict, and the rule with its line.',
    examples: [
      'agentctl egress check worker https://api.example.com',
      'agentctl egress check worker http://api.example.com/v1/models --method POST',
      'agentctl egress log worker --tail 20',
      'agentctl -p research egress log --follow --format json',
    ],
  },
  proxy: {
    summary: 'Let applications on this machine submit work: a socket or a loopback port of the control API',
    detail:
      'It runs until Ctrl-C and leaves nothing behind. Whoever may open the socket, or has the token, may do with the work of this project what you may. Applications use `@agentctl/cli/client`, or HTTP: GET /v1/openapi.json describes it.',
    examples: [
      'agentctl proxy --socket ./agentctl.sock',
      'agentctl proxy --port 7071 --token-file ./token',
      'curl --unix-socket ./agentctl.sock http://localhost/v1/runs',
    ],
  },
  audit: {
    summary: 'Show every security control of what runs, declared and effective',
    detail:
      'Asks the engine about each container, and the kernel in the namespaces of each replica. With the ids of the CIS Docker Benchmark and of the Pod Security Standards. Exit 1 when something is not as it was declared; what the file loosens is shown, and is no finding.',
    examples: ['agentctl audit', 'agentctl audit coder', 'agentctl audit --format json'],
  },
  doctor: {
    summary: 'Check this machine: engine, limits, disk, images, Node',
    detail: 'Each finding that matters comes with a remedy. Exit 1 when something must be mended.',
    examples: ['agentctl doctor'],
  },
  conformance: {
    summary: 'Test whether a program speaks the agent protocol',
    detail:
      'Starts it again and again against a gateway that it plays itself, faults included, and prints which rules of docs/protocol.md it keeps. Without --slow the rules about long work are left out. An image is run on this machine by the docker client, locked down as `up` does it. Needs no project.',
    examples: [
      `agentctl conformance --input '{"text": "a b"}' --slow '{"text": "a b", "seconds": 60}' -- python3 app/agent.py`,
      `agentctl conformance --image my-agent:1 --input '{"text": "a b"}' --slow '{"text": "a b", "seconds": 60}'`,
    ],
  },
  errors: { summary: 'Explain an error code', examples: ['agentctl errors AG4001', 'agentctl errors'] },
  version: { summary: 'Print the version', examples: ['agentctl version', 'agentctl version --format json'] },
}
