import { Redis } from 'ioredis'
import { afterAll } from 'vitest'
import { connectBroker } from '../../../engine/broker/bullmq.ts'
import { queuePrefix } from '../../../engine/names.ts'
import { startRedis } from '../../support/redis.ts'
import { brokerConformance } from './conformance.ts'

const redis = await startRedis()
afterAll(() => redis.stop())

brokerConformance('Redis on a port, with a password', {
  connect: (project) => connectBroker({ project, host: redis.host, port: redis.port, password: redis.password }),
  async clean(project) {
    const client = new Redis({ host: redis.host, port: redis.port, password: redis.password })
    const keys = await client.keys(`${queuePrefix(project)}*`)
    if (keys.length > 0) await client.del(...keys)
    client.disconnect()
  },
})
