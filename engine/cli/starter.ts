/** The project that `agentctl init` writes: small, commented, and running right away. */
export interface StarterFile {
  readonly path: string
  readonly content: string
}

export const starter = (name: string): readonly StarterFile[] => [
  { path: 'agents.yaml', content: agentsYaml(name) },
  { path: 'handlers/summarise.ts', content: HANDLER },
  { path: '.env.example', content: ENV },
]

const agentsYaml = (
  name: string,
): string => `# agentctl: Compose for AI agents.  agentctl up -d  brings this up;  agentctl down  removes it.
name: ${name}

agents:
  # Runs commands. Try:  agentctl task shell '{"command": "uname -a; ls -la /workspace"}'
  # Every agent is a locked-down container: not root, no capabilities, read-only root, no network but the gateway.
  shell:
    handler: exec
    replicas: 2          # agentctl scale shell=5
    concurrency: 2       # tasks at once per replica
    mem_limit: 256m

  # Runs your own code: one function from input to result.
  summariser:
    handler: { module: ./handlers/summarise.ts }
    environment:
      # Variables of your shell or of .env; the default stands after ":-".
      LONGEST: \${LONGEST:-5}

# Services are plain Compose services. An agent reaches one only when it says  uses: [NAME].
# services:
#   memory:
#     image: redis:7

# Secrets become files at /run/secrets/NAME, never variables.
# secrets:
#   token: { environment: MY_TOKEN }

pipelines:
  # agentctl run hello --input text="to be or not to be"
  hello:
    inputs:
      text: { type: string, default: the quick brown fox jumps over the lazy dog }
    jobs:
      look:
        agent: shell
        with: { command: [uname, -a] }
      count:
        agent: summariser
        with: { text: "\${{ inputs.text }}" }
`

const HANDLER = `import type { Context } from '@agentctl/cli/agent'

/** Called once per task; what it returns is the task's result. It runs as TypeScript, types are stripped. */
export default async function summarise(input: { text: string }, ctx: Context) {
  if (typeof input?.text !== 'string') throw new Error('expected {"text": "…"}')
  const words = input.text.split(/\\s+/).filter(word => word !== '')
  ctx.progress(\`\${words.length} words\`)
  const longest = [...new Set(words)].sort((a, b) => b.length - a.length || a.localeCompare(b))
  return { words: words.length, longest: longest.slice(0, Number(process.env.LONGEST ?? 5)) }
}
`

const ENV = `# Copy to .env: these variables are used for \${…} in agents.yaml.
LONGEST=5
`
