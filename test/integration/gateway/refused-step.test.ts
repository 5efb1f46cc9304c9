import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectBroker } from '../../../engine/broker/bullmq.ts'
import type { Broker } from '../../../engine/broker/port.ts'
import { harness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await harness()
})
afterAll(() => h.stop())

test('a step for which the broker refuses to give what it needs is made again', async () => {
  h.configure(
    { a: {} },
    {
      two: {
        jobs: {
          first: { agent: 'a', with: 1 as never },
          second: { agent: 'a', needs: ['first'], with: { $ref: ['needs', 'first', 'result'] } as never },
        },
      },
    },
  )
  let refusals = 0
  await h.start({
    connect: (project, password) => {
      const inner = connectBroker({ project, host: h.redis.host, port: h.redis.port, password })
      const refusing: Broker = Object.create(inner, {
        read: {
          value: (tasks: Parameters<Broker['read']>[0]) => {
            if (tasks.some(({ id }) => id.endsWith('.first.0')) && refusals++ === 0)
              return Promise.reject(Object.assign(new Error('BUSY Redis is busy running a script'), { name: 'ReplyError' }))
            return inner.read(tasks)
          },
        },
      })
      return refusing
    },
  })
  h.agent('a').run(1, async (task) => ({ got: task.input }))
  const run = await h.submit({ pipeline: 'two', inputs: {} })
  expect(await h.ended(run)).toMatchObject({ status: 'completed', result: { second: { got: { got: 1 } } } })
  expect(refusals).toBeGreaterThan(1)
})
