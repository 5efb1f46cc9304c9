import { expect, test } from 'vitest'
import { Rereading } from '../../../engine/gateway/rereading.ts'

test('a reading that fails is made again until one succeeds', async () => {
  let reads = 0
  const said: string[] = []
  const reading = new Rereading(
    async () => {
      if (++reads < 3) throw new Error('away')
    },
    new AbortController().signal,
    (message) => said.push(message),
  )
  const done = reading.again()
  expect(reading.isStale).toBe(true)
  await done
  expect([reads, said.length, reading.isStale]).toEqual([3, 2, false])
  // And the next loss begins anew.
  await reading.again()
  expect([reads, reading.isStale]).toEqual([4, false])
})

test('a loss during a reading is read after it, and never two at once', async () => {
  const going: (() => void)[] = []
  let reads = 0
  const reading = new Rereading(
    () => {
      reads += 1
      const { promise, resolve } = Promise.withResolvers<void>()
      going.push(resolve)
      return promise
    },
    new AbortController().signal,
    () => {},
  )
  const both = [reading.again(), reading.again()]
  expect(reads).toBe(1)
  going[0]?.()
  await expect.poll(() => reads).toBe(2)
  expect(reading.isStale).toBe(true)
  going[1]?.()
  await Promise.all(both)
  expect([reads, reading.isStale]).toEqual([2, false])
})

test('a closed gateway reads no more', async () => {
  const abort = new AbortController()
  let reads = 0
  const reading = new Rereading(
    async () => {
      reads += 1
      abort.abort()
      throw new Error('closed')
    },
    abort.signal,
    () => {},
  )
  await reading.again()
  expect(reads).toBe(1)
})
