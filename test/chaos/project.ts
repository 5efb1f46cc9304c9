/** The project that is broken: workers, keyed workers, orchestrators that delegate three levels deep. Its agents write down what they do. */

export const PER_KEY = 2
export interface Shape {
  readonly work: number
  readonly keyed: number
  readonly lead: number
}

/** `version` changes the agents' configuration: what `up` replaces while they work. */
export const agentsFile = (shape: Shape, version: number, telemetry: string | null, durability: string): string => `
broker: { durability: ${durability} }
agents:
  work:
    replicas: ${shape.work}
    concurrency: 4
    handler: { module: ./app/work.ts }
    environment: { CHAOS_VERSION: "${version}" }
    volumes: ["records:/records"]
    retry: { delay: 200ms, max_delay: 1s }
  keyed:
    replicas: ${shape.keyed}
    concurrency: { per_replica: 4, key: "\${{ input.key }}", per_key: ${PER_KEY} }
    handler: { module: ./app/work.ts }
    environment: { CHAOS_VERSION: "${version}" }
    volumes: ["records:/records"]
    retry: { delay: 200ms, max_delay: 1s }
  lead:
    role: orchestrator
    replicas: ${shape.lead}
    concurrency: 2
    delegates_to: [lead, work, keyed]
    handler: { module: ./app/lead.ts }
    environment: { CHAOS_VERSION: "${version}" }
    volumes: ["records:/records"]
volumes: { records: {} }
pipelines:
  two:
    inputs: { n: { type: number, required: true }, ms: { type: number, required: true } }
    jobs:
      first: { agent: work, with: { n: "\${{ inputs.n }}", ms: "\${{ inputs.ms }}" } }
      second: { agent: work, needs: [first], with: { n: "\${{ needs.first.result.value }}", ms: "\${{ inputs.ms }}" } }
${telemetry === null ? '' : `telemetry: { endpoint: "${telemetry}" }`}
`

/** Each line is one write to a file that outlives the agent: a killed process leaves whole lines or none. */
const RECORD = `
import { appendFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
const me = process.env.AGENTCTL_AGENT + '.' + process.env.AGENTCTL_REPLICA
// Its whole replica goes with it: a fault of the agent's own.
export function crash() {
  appendFileSync('/records/' + me + '.log', JSON.stringify({ w: me, x: Date.now() }) + '\\n')
  process.kill(process.pid, 'SIGKILL')
}
export function recorded(work) {
  return async (input, ctx) => {
    const { id, run, attempt } = ctx.task
    const execution = id + '#' + attempt + '@' + me + '-' + randomBytes(3).toString('hex')
    const note = (line) => appendFileSync('/records/' + me + '.log', JSON.stringify(line) + '\\n')
    note({ e: execution, t: id, r: run, a: attempt, w: me, p: input.parent ?? null, c: input.child_key ?? null, k: input.key ?? null, b: Date.now() })
    try {
      const result = { value: await work(input, ctx), execution }
      note({ e: execution, d: Date.now(), ok: result })
      return result
    } catch (error) {
      note({ e: execution, d: Date.now(), code: error?.code ?? 'error', retryable: error?.retryable === true })
      throw error
    }
  }
}
`
const WORK = `
import { setTimeout as sleep } from 'node:timers/promises'
import { crash, recorded } from './record.ts'
const fail = (code, retryable) => Object.assign(new Error(code), { code, retryable })
export default recorded(async (input, ctx) => {
  await sleep(input.ms, undefined, { signal: ctx.signal }).catch(() => { throw fail('cancelled', false) })
  if (input.crash !== undefined && ctx.task.attempt <= input.crash) crash()
  if (ctx.task.attempt <= (input.fails ?? 0)) throw fail('flaky', true)
  if (input.bad === true) throw fail('bad', false)
  return input.n * 2
})
`
const LEAD = `
import { setTimeout as sleep } from 'node:timers/promises'
import { recorded } from './record.ts'
export default recorded(async (input, ctx) => {
  await sleep(input.ms / 4, undefined, { signal: ctx.signal })
  const child = (name, agent, more) =>
    ctx.delegate(agent, { n: input.n, ms: input.ms, parent: ctx.task.id, child_key: name, ...more }, { key: name })
  const children = Array.from({ length: input.width }, (_, i) =>
    i === 0 && input.depth > 1
      ? child('lead-' + i, 'lead', { depth: input.depth - 1, width: input.width })
      : i % 2 === 1 ? child('keyed-' + i, 'keyed', { key: 'of-' + (input.n % 3) }) : child('work-' + i, 'work', {}))
  const all = await Promise.all(children)
  return all.reduce((sum, it) => sum + it.value, 0)
})
`
export const HANDLERS: { readonly [path: string]: string } = {
  'app/record.ts': `// @ts-nocheck\n${RECORD}`,
  'app/work.ts': `// @ts-nocheck\n${WORK}`,
  'app/lead.ts': `// @ts-nocheck\n${LEAD}`,
}

/** The value that a lead of this depth and width gives: every leaf doubles n. */
export const leaves = (depth: number, width: number): number => (depth <= 1 ? width : width - 1 + leaves(depth - 1, width))
export const tasksOf = (depth: number, width: number): number => 1 + (depth <= 1 ? width : width - 1 + tasksOf(depth - 1, width))
