/** The events of a run as an iteration that outlives lost connections. */
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunEvent } from '../../spec/protocol.ts'
import { interrupted } from './refusal.ts'
import { RETRY_PAUSE_MS, type Send } from './send.ts'

export interface EventOptions {
  readonly follow?: boolean
  /** The `id` of an event: go on after it. */
  readonly after?: string
  readonly signal?: AbortSignal
}

export async function* streamEvents(send: Send, path: string, options: EventOptions, clientSignal?: AbortSignal): AsyncIterable<RunEvent> {
  const { follow = false, signal } = options
  const signals = [clientSignal, signal].filter((it) => it !== undefined)
  const gone = (): AbortSignal | undefined => signals.find((it) => it.aborted)
  let last = options.after
  // Events without an id (a gateway before them) are told again to who comes back: known by time and text.
  let [time, seen] = ['', new Set<string>()]
  for (;;) {
    const headers = { accept: 'application/jsonl', ...(last === undefined ? {} : { 'last-event-id': last }) }
    const call = { method: 'GET', path: `${path}?follow=${follow ? 1 : 0}`, headers, wait_ms: follow ? null : 0, signal } as const
    const response = await send(call, async (it) => it)
    try {
      const known = { time, seen: new Set(seen) }
      for await (const line of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY })) {
        if (line.trim() === '') continue
        const event = JSON.parse(line) as RunEvent
        if (event.id === undefined && (event.at < known.time || (event.at === known.time && known.seen.has(line)))) continue
        if (event.at !== time) [time, seen] = [event.at, new Set()]
        seen.add(line)
        last = event.id ?? last
        yield event
      }
      if (response.complete) return
    } catch (error) {
      if (error instanceof SyntaxError) throw error
    } finally {
      response.destroy()
    }
    const stopped = gone()
    if (stopped !== undefined) throw interrupted(stopped.reason)
    const pause = signals.length === 0 ? {} : { signal: AbortSignal.any(signals) }
    await sleep(RETRY_PAUSE_MS, undefined, pause).catch((cause) => Promise.reject(interrupted(cause)))
  }
}
