/**
 * What `durability` costs and what it keeps. A real redis-server per setting gets tasks, added and completed as the gateway does it, until it
 * is killed with SIGKILL; when it is back, what it had said yes to is looked for. A loss of power is not measured: SIGKILL leaves what the
 * kernel has not yet written.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { connectBroker } from '../engine/broker/bullmq.ts'
import type { Broker, TaskRef } from '../engine/broker/port.ts'
import { startRedis, type TestRedis } from '../test/support/redis.ts'
import { median, remark, report } from './support.ts'

const SETTINGS = ['none', 'normal', 'strict'] as const
type Setting = (typeof SETTINGS)[number]
const FLAGS: { readonly [setting in Setting]: readonly string[] } = {
  none: ['--appendonly', 'no'],
  normal: ['--appendonly', 'yes', '--appendfsync', 'everysec'],
  strict: ['--appendonly', 'yes', '--appendfsync', 'always'],
}
/** As many as there are slots in the benchmark of routes. */
const SLOTS = 50
const LOAD_MS = 2_000
const WARM_MS = 500
const PAYLOAD = JSON.stringify({ input: 'x'.repeat(1_024) })

interface Load {
  /** Adds that were said yes to. */
  readonly added: TaskRef[]
  readonly completed: TaskRef[]
  stop(): void
}

/** Each slot adds a task, fetches one and completes it, as fast as it is answered. */
function load(broker: Broker, queue: string): Load {
  const self = { added: [] as TaskRef[], completed: [] as TaskRef[] }
  let on = true
  let number = 0
  const slot = async (token: string): Promise<void> => {
    while (on) {
      const id = `t${++number}`
      await broker.add([{ queue, id, data: PAYLOAD }])
      if (!on) return
      self.added.push({ queue, id })
      const task = await broker.fetch(queue, token)
      if (task === null) continue
      const ended = await broker.complete(queue, task.id, token, PAYLOAD, false)
      if (on && ended.ok) self.completed.push({ queue, id: task.id })
    }
  }
  for (let at = 0; at < SLOTS; at++) void slot(`s${at}`).catch(() => {})
  return {
    ...self,
    stop: () => {
      on = false
    },
  }
}

interface Round {
  readonly perSecond: number
  readonly said: number
  readonly lost: number
}

const connect = async (redis: TestRedis): Promise<Broker> => {
  const broker = connectBroker({ project: 'bench-durability', host: redis.host, port: redis.port, password: redis.password })
  for (const end = Date.now() + 20_000; !broker.connected; await sleep(10))
    if (Date.now() > end) throw new Error(`no connection to redis within 20 s: ${broker.problem?.message ?? ''}`)
  return broker
}

async function round(setting: Setting): Promise<Round> {
  const redis = await startRedis({ flags: FLAGS[setting] })
  try {
    const before = await connect(redis)
    const running = load(before, 'q')
    await sleep(WARM_MS)
    const [begun, start] = [running.completed.length, performance.now()]
    await sleep(LOAD_MS)
    const perSecond = ((running.completed.length - begun) * 1000) / (performance.now() - start)
    // In the middle of it: what was answered before it died was said yes to.
    await redis.kill()
    running.stop()
    await before.close()
    await redis.restart()
    const after = await connect(redis)
    const added = await after.read(running.added)
    const completed = await after.read(running.completed)
    await after.close()
    const lost = added.filter((state) => state === null).length + completed.filter((state) => state?.finished !== true).length
    return { perSecond, said: running.added.length + running.completed.length, lost }
  } finally {
    await redis.stop()
  }
}

export async function benchDurability(rounds: number): Promise<void> {
  const all: { readonly [setting in Setting]: Round[] } = { none: [], normal: [], strict: [] }
  for (let at = 0; at < rounds; at++) {
    // Who goes first alternates: the disk may still be busy with the one before.
    for (const setting of at % 2 === 0 ? SETTINGS : [...SETTINGS].reverse()) all[setting].push(await round(setting))
  }
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0)
  for (const setting of SETTINGS) {
    const said = sum(all[setting].map((it) => it.said))
    const lost = sum(all[setting].map((it) => it.lost))
    const ratios = all[setting].map((it, at) => it.perSecond / (all.normal[at]?.perSecond ?? Number.NaN))
    const speed = median(all[setting].map((it) => it.perSecond))
    report(
      `durability ${setting}: lost by SIGKILL`,
      `${lost} of ${said}`,
      setting === 'none' ? '' : '0',
      setting === 'none' ? null : lost === 0,
    )
    report(`durability ${setting}: tasks per second against normal`, median(ratios).toFixed(2), '', null)
    remark(`${speed.toFixed(0)} tasks/s`)
  }
  remark(
    `${rounds} rounds in turns, ${SLOTS} slots, 1 KiB in and out, killed after ${(WARM_MS + LOAD_MS) / 1000} s of load; counted are adds and completions. A loss of power is not measured`,
  )
}
