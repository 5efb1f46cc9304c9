/** What a gateway is in the middle of when it is killed: plain tasks, a pipeline, delegation with parked parents, a retry, a cancel. */
import { setTimeout as sleep } from 'node:timers/promises'
import { DEFAULT_WORK, type Project } from '../../spec/model.ts'
import type { Json } from '../../spec/protocol.ts'
import { newRunId } from '../../engine/ulid.ts'
import { agent, project } from '../support/project.ts'
import type { TestRedis } from '../support/redis.ts'
import { check, type Verdict } from './checker.ts'
import { type CrashWorld, crashWorld } from './crash-world.ts'
import type { History, LedgerRun } from './history.ts'
import type { Cut } from './redis-proxy.ts'

const quick = { ...DEFAULT_WORK, retry: { ...DEFAULT_WORK.retry, delay_ms: 20, max_delay_ms: 50 } }
export const crashProject = (name: string): Project => ({
  ...project({
    agents: [
      agent('lead', { role: 'orchestrator', concurrency: 1, delegates_to: ['lead', 'work'], work: quick }),
      agent('work', { concurrency: 2, replicas: 2, work: quick }),
    ],
  }),
  name,
  pipelines: {
    two: {
      name: 'two',
      inputs: {},
      jobs: {
        first: { id: 'first', agent: 'work', needs: [], type: 'task', with: { n: 5 }, foreach: null },
        second: {
          id: 'second',
          agent: 'work',
          needs: ['first'],
          type: 'task',
          with: { n: { $ref: ['needs', 'first', 'result', 'value'] } },
          foreach: null,
        },
      },
    },
  },
})

export interface Trial {
  readonly cuts: readonly Cut[]
  /** Cuts that the gateways lived long enough to reach. */
  readonly reached: readonly Cut[]
  /** Commands of the first gateway, where none was cut: how many places there are. */
  readonly commands: readonly string[]
  readonly verdicts: readonly Verdict[]
  readonly history: History
}

/** Runs the scenario; the gateway dies at each of `cuts`, the n-th of them counted from the start of the n-th gateway. */
export async function crashTrial(redis: TestRedis, name: string, gateway: string, cuts: readonly Cut[]): Promise<Trial> {
  const of = crashProject(name)
  await using world = await crashWorld(redis, of, gateway)
  world.start(cuts)
  startAgents(world)
  const runs = await scenario(world)
  const commands = [...world.proxy.commands]
  // What follows the end of a run (a cancelled task that is let go, what is forgotten) is waited for, within bounds.
  let state = await world.state()
  for (
    let tries = 0;
    tries < 200 && state.queues.some((queue) => queue.waiting + queue.active + queue.delayed + queue.prioritized > 0);
    tries++
  ) {
    await sleep(50)
    state = await world.state()
  }
  const again = await Promise.all(runs.map((it) => world.ended(it.run)))
  const history: History = {
    submitted: world.submitted,
    executions: world.executions,
    runs: runs.map((it, index) => both(it, again[index] as LedgerRun)),
    ...state,
    faults: [],
    mayLose: false,
    perKey: null,
    roots: null,
    containers: null,
  }
  return { cuts, reached: world.reached, commands, verdicts: check(history), history }
}

const both = (first: LedgerRun, second: LedgerRun): LedgerRun => ({
  ...second,
  answers: [...new Set([...first.answers, ...second.answers])],
})

function startAgents(world: CrashWorld): void {
  const failure = (code: string, retryable: boolean): Error => Object.assign(new Error(code), { code, retryable })
  for (const replica of [1, 2]) {
    world.agent('work', replica, 2, async (input, { attempt, signal }): Promise<Json> => {
      await sleep(input.ms ?? 15, undefined, { signal }).catch(() => {
        throw failure('cancelled', false)
      })
      if (attempt <= (input.fails ?? 0)) throw failure('flaky', true)
      return (input.n as number) * 2
    })
  }
  world.agent('lead', 1, 1, async (input, { delegate }): Promise<Json> => {
    const value = (result: Json): number => (result as { value: number }).value
    if (input.depth === 0) return value(await delegate('leaf', 'work', { n: input.n }))
    const all = await Promise.all([
      delegate('deeper', 'lead', { n: input.n, depth: input.depth - 1 }),
      delegate('beside', 'work', { n: input.n }),
    ])
    return all.reduce<number>((sum, it) => sum + value(it), 0)
  })
}

async function scenario(world: CrashWorld): Promise<readonly LedgerRun[]> {
  const task = (id: string, of: string, tasks: readonly Json[]) => ({ id, agent: of, type: 'task', tasks })
  const [plain, pipeline, deep, flaky, cancelled] = Array.from({ length: 5 }, () => newRunId()) as [string, string, string, string, string]
  const cancel = async (): Promise<void> => {
    await world.submit(
      task(cancelled, 'work', [
        { n: 1, ms: 8_000 },
        { n: 2, ms: 8_000 },
      ]),
      ['completed'],
      2,
    )
    for (let tries = 0; world.begun(cancelled) === 0 && tries < 100; tries++) await sleep(10)
    await world.cancel(cancelled)
  }
  await Promise.all([
    world.submit(task(plain, 'work', [{ n: 1 }, { n: 2 }, { n: 3 }]), ['completed'], 3),
    world.submit({ id: pipeline, pipeline: 'two', inputs: {} }, ['completed'], null),
    world.submit(task(deep, 'lead', [{ n: 1, depth: 2 }]), ['completed'], 1),
    world.submit(task(flaky, 'work', [{ n: 7, fails: 1 }]), ['completed'], 1),
    cancel(),
  ])
  return await Promise.all([plain, pipeline, deep, flaky, cancelled].map((run) => world.ended(run)))
}

export const wrong = (trial: Trial): readonly string[] =>
  trial.verdicts.flatMap(({ invariant, violations }) => violations.map((it) => `${invariant}: ${it}`))
