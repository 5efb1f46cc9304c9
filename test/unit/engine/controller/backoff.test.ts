import { expect, test } from 'vitest'
import { Backoff, MAX_MS, MAX_OWN_MS } from '../../../../engine/controller/backoff.ts'

/** Deaths of a container that lives for `life` ms each time and is started when it may be: the pauses before each start. */
function pauses(count: number, life: number, max_ms: number = MAX_MS): readonly number[] {
  const backoff = new Backoff()
  const found: number[] = []
  let now = 1_000_000
  backoff.started('c', now)
  for (let n = 0; n < count; n++) {
    now += life
    backoff.died('c', now, max_ms)
    const until = backoff.isHeld('c', now) ? (backoff.next(now) ?? now) : now
    found.push(until - now)
    now = until
    backoff.started('c', now)
  }
  return found
}

test('the first death is mended at once, further ones ever later, half a minute at most', () => {
  expect(pauses(9, 100)).toEqual([0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
})

test('one of our own parts is never held for longer than 2 s', () => {
  expect(pauses(6, 100, MAX_OWN_MS)).toEqual([0, 500, 1_000, 2_000, 2_000, 2_000])
})

test('who lived for ten seconds died for the first time', () => {
  expect(pauses(4, 10_000)).toEqual([0, 0, 0, 0])
  expect(pauses(3, 9_999)).toEqual([0, 500, 1_000])
})

test('containers do not hold each other; a death that is told twice counts once', () => {
  const backoff = new Backoff()
  backoff.died('a', 5_000)
  backoff.died('a', 5_000)
  expect(backoff.isHeld('a', 5_000)).toBe(false)
  backoff.died('a', 5_400)
  expect([backoff.isHeld('a', 5_899), backoff.isHeld('a', 5_900), backoff.isHeld('b', 5_400)]).toEqual([true, false, false])
  expect([backoff.next(5_400), backoff.next(5_900)]).toEqual([5_900, null])
})
