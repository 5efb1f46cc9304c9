/** One question to the gateway, asked until its answer would not change. */
import type { ErrorBody } from '../spec/protocol.ts'

const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 1_000
/** For an answer that is not held back on purpose. */
export const ANSWER_MS = 5_000

export type Asked<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly code: string; readonly message: string }

export const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(end, ms)
    function end(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    signal.addEventListener('abort', end)
  })

export const problem = (status: number, body: string): { readonly code: string; readonly message: string } => {
  try {
    const { error } = JSON.parse(body) as Partial<ErrorBody>
    if (error !== undefined)
      return { code: error.code, message: error.hint === undefined ? error.message : `${error.message} (${error.hint})` }
  } catch {
    // Not ours: the status says what there is to say.
  }
  return { code: `http_${status}`, message: body.slice(0, 300) }
}

/** Asks until there is an answer that asking again would not change. */
export async function ask<T>(
  send: () => Promise<{ readonly status: number; readonly body: string }>,
  signal: AbortSignal,
): Promise<Asked<T>> {
  for (let wait = RETRY_MIN_MS; !signal.aborted; wait = Math.min(RETRY_MAX_MS, wait * 2)) {
    try {
      const { status, body } = await send()
      if (status === 200 || status === 201) return { ok: true, value: JSON.parse(body) as T }
      if (status < 500 && status !== 429) return { ok: false, ...problem(status, body) }
    } catch {
      // The gateway is away; it comes back.
    }
    await pause(wait, signal)
  }
  return { ok: false, code: 'aborted', message: 'the task was stopped while it waited for the gateway' }
}
