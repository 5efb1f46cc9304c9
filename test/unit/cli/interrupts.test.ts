import { expect, test } from 'vitest'
import { listenToInterrupts } from '../../../engine/cli/interrupts.ts'
import type { Io } from '../../../engine/cli/io.ts'

function fake(): { io: Io; send: () => void; exits: number[] } {
  const listeners = new Set<(signal: 'SIGINT') => void>()
  const exits: number[] = []
  const onSignal = (listener: (signal: 'SIGINT') => void): (() => void) => {
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }
  return {
    io: { onSignal, exit: (code: number) => void exits.push(code) } as unknown as Io,
    exits,
    send: () => listeners.forEach((it) => it('SIGINT')),
  }
}

test('the first signal aborts, the second ends the process with 130', () => {
  const { io, send, exits } = fake()
  const interrupts = listenToInterrupts(io)
  send()
  expect([interrupts.signal.aborted, exits]).toEqual([true, []])
  send()
  expect(exits).toEqual([130])
})

test('a redirected first signal leaves the abort alone; the second still ends the process', () => {
  const { io, send, exits } = fake()
  const interrupts = listenToInterrupts(io)
  let stopped = 0
  interrupts.redirect(() => stopped++)
  send()
  expect([interrupts.signal.aborted, stopped, exits]).toEqual([false, 1, []])
  send()
  expect(exits).toEqual([130])
  interrupts.dispose()
})
