import fc from 'fast-check'
import { expect, test } from 'vitest'
import { engineEvent, jsonLines } from '../../../../../engine/runtimes/docker/events.ts'
import { FrameReader } from '../../../../../engine/runtimes/docker/frames.ts'

/** Cuts a buffer at the given places. */
function* cut(data: Buffer, places: readonly number[]): Generator<Buffer> {
  const sorted = [...places.map((place) => place % (data.length + 1)), data.length].sort((a, b) => a - b)
  let from = 0
  for (const to of sorted) {
    yield data.subarray(from, to)
    from = to
  }
}

async function collect(chunks: Iterable<Buffer>): Promise<unknown[]> {
  const all: unknown[] = []
  for await (const value of jsonLines(
    (async function* () {
      yield* chunks
    })(),
  ))
    all.push(value)
  return all
}

test('JSON lines survive any cut, also within a character', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ name: fc.string({ unit: 'grapheme' }) })),
      fc.array(fc.nat(), { maxLength: 8 }),
      async (values, places) => {
        const data = Buffer.from(values.map((value) => `${JSON.stringify(value)}\r\n`).join(''))
        expect(await collect(cut(data, places))).toEqual(values)
      },
    ),
    { numRuns: 50 },
  )
})

test('frames survive any cut', () => {
  const frame = fc.record({ stream: fc.constantFrom(1, 2), data: fc.uint8Array({ minLength: 1, maxLength: 40 }) })
  fc.assert(
    fc.property(fc.array(frame), fc.array(fc.nat(), { maxLength: 8 }), (frames, places) => {
      const data = Buffer.concat(
        frames.flatMap(({ stream, data }) => {
          const header = Buffer.alloc(8)
          header[0] = stream
          header.writeUInt32BE(data.length, 4)
          return [header, Buffer.from(data)]
        }),
      )
      const reader = new FrameReader()
      const read = [...cut(data, places)].flatMap((chunk) => reader.read(chunk))
      const of = (name: string): Buffer => Buffer.concat(read.filter(({ stream }) => stream === name).map(({ data }) => data))
      const sent = (kind: number): Buffer =>
        Buffer.concat(frames.filter(({ stream }) => stream === kind).map(({ data }) => Buffer.from(data)))
      expect(of('stdout').equals(sent(1))).toBe(true)
      expect(of('stderr').equals(sent(2))).toBe(true)
    }),
    { numRuns: 100 },
  )
})

test('an event has its labels apart from its own attributes', () => {
  const event = engineEvent({
    Type: 'container',
    Action: 'die',
    Actor: { ID: 'abc', Attributes: { name: 'p-a-1', image: 'i', exitCode: '137', 'agentctl.project': 'p' } },
    timeNano: 1_700_000_000_123_400_000,
  })
  expect(event).toEqual({
    action: 'die',
    container: 'abc',
    name: 'p-a-1',
    labels: { 'agentctl.project': 'p' },
    exit_code: 137,
    time_ms: 1_700_000_000_123,
  })
})

test('health comes as an action of its own; what does not matter is left out', () => {
  expect(engineEvent({ Action: 'health_status: unhealthy', Actor: {} })?.action).toBe('unhealthy')
  expect(engineEvent({ Action: 'exec_start: true', Actor: {} })).toBeNull()
})
