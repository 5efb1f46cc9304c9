/** Answers of pipelines and scripts, over connections that break between them. */

interface Pipeline {
  exec(): Promise<[Error | null, unknown][] | null>
}
type Commands = Pipeline & { call(name: string, ...args: readonly unknown[]): unknown }

/** The replies of a pipeline or transaction; the first error is thrown. */
export async function replies(pipeline: Pipeline): Promise<unknown[]> {
  let times = 0
  return resent(async () => {
    const answers = (await (times++ === 0 ? pipeline : copyOf(pipeline)).exec()) ?? []
    return answers.map(([error, value]) => {
      if (error !== null) throw error
      return value
    })
  })
}

/** ioredis sends single commands again after a reconnect, but gives up a pipeline of which some replies had come: all of it is sent again. */
export async function resent<T>(send: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await send()
    } catch (error) {
      if (!(error instanceof Error && error.name === 'AbortError')) throw error
    }
  }
}

function copyOf(pipeline: Pipeline): Pipeline {
  const { redis, _queue: queue } = pipeline as unknown as {
    readonly redis: { pipeline(): Commands; multi(): Commands }
    readonly _queue: readonly { readonly name: string; readonly args: readonly unknown[] }[]
  }
  const isTransaction = queue[0]?.name === 'multi'
  const copy = isTransaction ? redis.multi() : redis.pipeline()
  for (const { name, args } of isTransaction ? queue.slice(1, -1) : queue) copy.call(name, ...args)
  return copy
}
