import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { DueTimes } from '../../../engine/gateway/due-times.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('rings for each when it is due, earliest first, with one timer', () => {
  const rung: number[] = []
  const due = new DueTimes<number>((item) => void rung.push(item))
  const now = Date.now()
  const times = Array.from({ length: 500 }, (_, n) => (n * 7_919) % 1_000)
  for (const ms of times) due.add(ms, now + ms)
  expect(vi.getTimerCount()).toBe(1)
  vi.advanceTimersByTime(499)
  expect(rung).toEqual(times.filter((ms) => ms <= 499).sort((a, b) => a - b))
  due.add(-1, now)
  vi.advanceTimersByTime(1)
  expect(rung).toContain(-1)
  vi.advanceTimersByTime(1_000)
  expect(rung).toHaveLength(501)
  expect(vi.getTimerCount()).toBe(0)
})

test('a time further away than a timer can be', () => {
  const rung: string[] = []
  const due = new DueTimes<string>((item) => void rung.push(item))
  due.add('in a month', Date.now() + 31 * 86_400_000)
  vi.advanceTimersByTime(30 * 86_400_000)
  expect(rung).toEqual([])
  vi.advanceTimersByTime(86_400_000)
  expect(rung).toEqual(['in a month'])
  due.add('never', Date.now() + 1_000)
  due.clear()
  expect(vi.getTimerCount()).toBe(0)
})
