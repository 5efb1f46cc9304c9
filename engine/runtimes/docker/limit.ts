/** At most `size` tasks at once, in order. Waiting for a socket instead would count against a call's deadline. */
export type Limit = <T>(task: () => Promise<T>) => Promise<T>

export function limitTo(size: number): Limit {
  const waiting: (() => void)[] = []
  let running = 0
  return async (task) => {
    if (running >= size) await new Promise<void>((resolve) => waiting.push(resolve))
    else running += 1
    try {
      return await task()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running -= 1
      else next()
    }
  }
}
