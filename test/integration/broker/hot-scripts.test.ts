/** What we write for BullMQ's two scripts is what BullMQ would have written, byte for byte, and it survives a Redis that forgot them. */
import { Command, Redis } from 'ioredis'
import { expect, test } from 'vitest'
import { connectBroker } from '../../../engine/broker/bullmq.ts'
import { addTemplate, filled, filledAdd, idMark, MARKS, template } from '../../../engine/broker/hot-scripts.ts'
import { startRedis } from '../../support/redis.ts'

const SCRIPT = { sha: 'a'.repeat(40), numberOfKeys: 2 }
/** As ioredis writes it. */
const written = (args: readonly (string | number | Buffer | undefined)[]): Buffer => {
  const command = new Command('evalsha', [SCRIPT.sha, SCRIPT.numberOfKeys, ...args] as string[])
  return Buffer.from(command.toWritable(undefined as never))
}

test.each(['null', '"plain"', '{"ü":"☃ 𝄞"}', `"${'x'.repeat(65_000)}"`])('an end with the result %.20s', (value) => {
  const args = (id: string, text: string, time: number): (string | number | Buffer | undefined)[] => [
    'q:active',
    `q:${id}`,
    id,
    time,
    'returnvalue',
    text,
    1,
    Buffer.from([0x80, 0xff, 0x0d, 0x0a]),
    undefined,
  ]
  const before = Date.now()
  const bytes = filled(template(SCRIPT, args(MARKS.id, MARKS.value, MARKS.time)), 'run_1.task.7', value)
  const times = Array.from({ length: Date.now() - before + 1 }, (_, index) => before + index)
  expect(times.some((time) => bytes.equals(written(args('run_1.task.7', value, time))))).toBe(true)
})

test.each(['{"input":null}', '{"input":"☃"}'])('an add with the data %s', (data) => {
  const id = 'run_1.task.12'
  const args = (packed: Buffer, text: string): (string | Buffer)[] => ['q:wait', 'q:meta', packed, text, Buffer.from([0x81])]
  const packed = (of: string, time: bigint): Buffer => {
    const number = Buffer.alloc(8)
    number.writeBigUInt64BE(time)
    return Buffer.concat([Buffer.from([0x92, 0xa0 + of.length]), Buffer.from(of), Buffer.from([0xcf]), number])
  }
  const made = addTemplate(SCRIPT, args(packed(idMark(id.length), BigInt(MARKS.time)), MARKS.value), id.length)
  expect(filledAdd(made, id, data, 1_800_000_000_000)).toEqual(written(args(packed(id, 1_800_000_000_000n), data)))
})

test('scripts that Redis forgot are loaded again: nothing is lost, nothing twice', async () => {
  const redis = await startRedis()
  const broker = connectBroker({ project: 't-hot', host: redis.host, port: redis.port, password: redis.password })
  const other = new Redis(redis.url)
  try {
    const tasks = Array.from({ length: 20 }, (_, index) => ({ queue: 'a', id: `run_1.task.${index}`, data: `{"n":${index}}` }))
    await broker.add(tasks.slice(0, 10))
    await other.script('FLUSH')
    await broker.add(tasks)
    const seen: string[] = []
    let next = await broker.fetch('a', 'a.1.session')
    while (next !== null) {
      seen.push(next.id)
      if (seen.length % 5 === 0) await other.script('FLUSH')
      const ended = await broker.complete('a', next.id, 'a.1.session', `"${next.id} ü"`, true)
      next = ended.ok ? ended.next : null
    }
    expect(seen).toEqual(tasks.map((task) => task.id))
    const states = await broker.read(tasks)
    expect(states.map((state) => state?.result)).toEqual(tasks.map((task) => `"${task.id} ü"`))
    expect(await broker.complete('a', 'run_1.task.3', 'a.1.session', 'null', true)).toEqual({ ok: false })
  } finally {
    other.disconnect()
    await broker.close()
    await redis.stop()
  }
})
