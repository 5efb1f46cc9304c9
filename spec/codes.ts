/**
 * Every problem that agentctl can report. Codes never change meaning. AG1xxx text and schema, AG2xxx references and graph,
 * AG3xxx hardening and policy, AG4xxx engine, AG5xxx broker, AG6xxx runs and agents, AG7xxx command line, AG9xxx internal.
 * `agentctl errors CODE` prints title and fix.
 */
export const CODES = {
  AG1001: { title: 'The file cannot be read', fix: 'Check the path and its permissions, or name a file with -f.' },
  AG1002: { title: 'The YAML cannot be parsed', fix: 'Mend the syntax at the place shown.' },
  AG1003: { title: 'A key stands twice in one mapping', fix: 'Remove one of the two.' },
  AG1004: { title: 'Unknown key', fix: 'Remove it, or use the suggested one; user data goes under x-… keys.' },
  AG1005: { title: 'Wrong type or value', fix: 'Write the value in the form that the message expects.' },
  AG1006: { title: 'A key that is not built yet', fix: 'Remove the key; a later version supports it.' },
  AG1007: { title: 'A required key is missing', fix: 'Add the key that the message names.' },
  AG1008: {
    title: 'A variable is not set or its expression is malformed',
    fix: 'Set it in the environment or --env-file, or give a default: ${NAME:-default}.',
  },
  AG1009: { title: 'No project file was found', fix: 'Run `agentctl init`, or name the file with -f.' },
  AG2001: { title: 'Reference to something that is not declared', fix: 'Declare it or correct the name.' },
  AG2002: { title: 'Cycle', fix: 'Remove one of the edges shown.' },
  AG2003: { title: 'Two things claim the same name or target', fix: 'Rename one of them.' },
  AG2004: { title: 'Malformed ${{ }} reference', fix: 'Use one whole value: ${{ inputs.NAME }} or ${{ needs.JOB.result.KEY }}.' },
  AG2005: { title: 'A dependency can never be satisfied', fix: 'Give the dependency a healthcheck, or use condition: service_started.' },
  AG2006: { title: 'Several gateways do not go with that', fix: 'Remove it, or set gateway.replicas to 1.' },
  AG3001: {
    title: 'The setting would weaken the isolation of an agent',
    fix: 'Remove it; agents run non-root and without host paths of the system.',
  },
  AG3002: {
    title: 'A bind source cannot be read by the agent',
    fix: 'Make it readable for the uid named in the message, or copy the data with `agentctl cp`.',
  },
  AG3003: {
    title: 'A secret has no value, or cannot be read',
    fix: 'Set the environment variable, create the file or mend the command that the secret names.',
  },
  AG3004: {
    title: 'An egress rule would allow too much',
    fix: 'Name the hosts and networks that the agent needs; "*", wildcards over a whole top-level domain and wide ranges are refused.',
  },
  AG3005: {
    title: 'The engine does not have what the file asks for',
    fix: 'Install or register it on the machine of the engine, or remove the key.',
  },
  AG3006: { title: 'What runs is not what was declared', fix: 'See `agentctl audit`; the controller makes such a replica anew.' },
  AG3007: { title: 'A seccomp profile cannot be used', fix: 'Write it in the JSON of the engine, with a default action that refuses.' },
  AG3010: {
    title: 'A secret stands where others can read it',
    fix: 'Take it out of the environment, command, label or image, and deliver it by `secrets`: a file at /run/secrets.',
  },
  AG4001: {
    title: 'No container engine answers',
    fix: 'Start Docker (or set DOCKER_HOST / DOCKER_CONTEXT); `agentctl doctor` shows what was tried.',
  },
  AG4002: {
    title: 'No permission on the engine socket',
    fix: 'Join the group that owns the socket (often `docker`), or use a rootless engine.',
  },
  AG4003: { title: 'The image is not on this machine and cannot be pulled', fix: 'Build or load it, or correct its name.' },
  AG4004: { title: 'A port on the host is in use', fix: 'Choose another host port, or stop what listens there.' },
  AG4005: { title: 'The engine refused', fix: 'See the message; `agentctl doctor` checks the engine.' },
  AG4006: {
    title: 'The engine ignored a limit or control',
    fix: 'Use an engine that enforces it; `agentctl doctor` names what is missing.',
  },
  AG4007: { title: 'No free subnet', fix: 'Set AGENTCTL_SUBNETS to a larger private range that the host does not route.' },
  AG4008: { title: 'A container did not become ready or healthy', fix: 'See `agentctl logs` of the container that the message names.' },
  AG4009: { title: 'A container exited during start', fix: 'See its last lines in the message, or `agentctl logs`.' },
  AG4010: { title: 'The project was made by a newer version', fix: 'Use that version of agentctl or a newer one.' },
  AG4011: { title: 'Another command is changing the project', fix: 'Wait for it to end and try again.' },
  AG4012: { title: 'No such project, container or volume', fix: 'See `agentctl ps`; bring it up with `agentctl up`.' },
  AG4013: { title: 'The image could not be built', fix: 'See the build output in the message.' },
  AG4014: { title: 'Something of that name exists and is not ours', fix: 'Remove or rename it, or choose another project name with -p.' },
  AG5001: {
    title: 'The gateway does not answer',
    fix: 'See `agentctl ps` and `agentctl logs agentctl-gateway`; `agentctl up` restores it.',
  },
  AG5002: {
    title: 'The broker does not answer',
    fix: 'It is restarted by itself, unless `agentctl stop` stopped it; see `agentctl ps -a` and `agentctl logs agentctl-broker`.',
  },
  AG5003: {
    title: "The broker's settings would lose work",
    fix: 'Set maxmemory-policy noeviction and appendonly yes on the broker, or say `broker: { durability: none }`.',
  },
  AG5004: {
    title: 'The broker has lost data',
    fix: 'See `agentctl runs ls`: the runs of the range that the message names were lost or run again.',
  },
  AG5005: {
    title: 'The broker cannot be changed while there is unfinished work',
    fix: 'Wait for the runs or cancel them; or `agentctl down` first: what is in the old broker stays there.',
  },
  AG5006: {
    title: 'A gateway cannot go while its runs are unfinished',
    fix: 'Wait for the runs or cancel them (`agentctl runs ls`), then `agentctl up` again.',
  },
  AG6001: { title: 'No such run or task', fix: 'See `agentctl runs ls`.' },
  AG6002: { title: 'No such agent', fix: 'See `agentctl ps` or the agents of the file.' },
  AG6003: { title: 'No such pipeline', fix: 'See the pipelines of the file.' },
  AG6004: { title: 'The task failed', fix: 'See `agentctl runs show` for its error.' },
  AG6005: { title: 'An input or result is over the size limit', fix: 'Keep it under 64 KiB of JSON; pass files by a volume.' },
  AG6006: { title: 'An input does not fit the pipeline', fix: 'See the inputs of the pipeline in the file.' },
  AG6007: {
    title: 'The agent does not speak the protocol',
    fix: 'An image of your own must lease tasks (docs/protocol.md) within ready_timeout.',
  },
  AG6008: { title: 'The queue is full', fix: 'Submit again when some tasks have ended; `max_queue` of the agent is the bound.' },
  AG6009: {
    title: 'No room for more work',
    fix: 'Free disk or broker memory; finished runs leave the broker as they age. Tasks under way go on.',
  },
  AG6010: { title: 'An artifact is over a limit or of a type that is not taken', fix: 'See `artifacts:` in the file.' },
  AG6011: { title: 'No such dead letter', fix: 'See `agentctl dlq ls`.' },
  AG6012: { title: 'No such approval, or it is decided', fix: 'See `agentctl approvals ls`.' },
  AG6013: {
    title: 'Recorded steps do not fit the code',
    fix: 'Keep the names and number of the steps of a task stable, or give changed code a new task.',
  },
  AG7001: { title: 'Bad usage of the command line', fix: 'See --help of the verb.' },
  AG7002: { title: 'Interrupted', fix: 'What was started goes on; see `agentctl ps` and `agentctl runs ls`.' },
  AG9001: { title: 'A bug in agentctl', fix: 'Please report it with AGENTCTL_DEBUG=1.' },
} as const

export type Code = keyof typeof CODES
