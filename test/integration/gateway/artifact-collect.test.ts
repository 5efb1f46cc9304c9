import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DEFAULT_ARTIFACTS } from '../../../spec/model.ts'
import { Artifacts } from '../../../engine/gateway/artifacts.ts'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { harness, type Harness, until } from './harness.ts'
import { raw, take } from './storing.ts'

let h: Harness
let gateway: Gateway
beforeAll(async () => {
  h = await harness()
  h.configure({ a: {} })
  gateway = await h.start()
})
afterAll(() => h.stop())

const root = (): string => join(h.directory, 'state', 'artifacts')
const isThere = (digest: string): boolean => existsSync(join(root(), 'sha256', digest.slice(7, 9), digest.slice(7)))
/** As the next gateway would, long after. */
async function collect(now: number, retention_ms: number, isOpen: (run: string) => boolean = () => false): Promise<void> {
  const artifacts = new Artifacts({
    broker: h.broker(),
    root: root(),
    settings: () => ({ ...DEFAULT_ARTIFACTS, retention_ms }),
    isOpen,
    log: (message) => {
      throw new Error(message)
    },
  })
  await artifacts.recover()
  await artifacts.finish()
  await artifacts.collect(now)
  artifacts.close()
}

test('bytes live as long as their run, and then as long as the file says; what never became visible goes with the run', async () => {
  const a = h.agent('a')
  const run = await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const first = await take(a)
  const put = async (lease: string, name: string): Promise<string> =>
    (await raw(h, 'a')('PUT', `/v1/artifacts/${name}?lease=${encodeURIComponent(lease)}`, `${name} ${run}`)).json.digest
  const failed = await put(first.lease, 'failed')
  await a.post('/v1/fail', { lease: first.lease, error: { code: 'x', message: 'x', retryable: true } })
  const second = await take(a)
  const kept = await put(second.lease, 'kept')
  const hour = Date.now() + 3_600_000
  // While the run is open, all that its executions stored stays: a child's input may name it.
  await collect(hour, 0, (id) => id === run)
  expect([failed, kept].map(isThere)).toEqual([true, true])
  await a.post('/v1/complete', { lease: second.lease, result: null })
  await h.ended(run)
  await until('its manifest is written', 10_000, () => existsSync(join(root(), 'runs', `${run}.json`)))
  await gateway.close()
  await collect(hour, 7_200_000)
  expect([failed, kept].map(isThere)).toEqual([false, true])
  // The run's record may be gone from the broker long before.
  await h.broker().forgetRun(run)
  await collect(hour, 7_200_000)
  expect(isThere(kept)).toBe(true)
  await collect(hour, 1_000)
  expect(isThere(kept)).toBe(false)
  expect(existsSync(join(root(), 'runs', `${run}.json`))).toBe(false)
  a.die()
})

test('a run that ended while no gateway was there gets its manifest from its record', async () => {
  gateway = await h.start()
  const a = h.agent('a')
  const run = await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const task = await take(a)
  const reply = await raw(h, 'a')('PUT', `/v1/artifacts/x?lease=${encodeURIComponent(task.lease)}`, `of ${run}`)
  await a.post('/v1/complete', { lease: task.lease, result: null })
  await h.ended(run)
  // At once: the manifest may not have been written yet.
  await gateway.close()
  a.die()
  await collect(Date.now() + 3_600_000, 7_200_000)
  expect(isThere(reply.json.digest)).toBe(true)
  expect(existsSync(join(root(), 'runs', `${run}.json`))).toBe(true)
  expect(await h.broker().artifactRuns()).toEqual([])
  gateway = await h.start()
  expect((await h.control('GET', `/v1/runs/${run}/artifacts`)).json.artifacts).toEqual([reply.json])
})
