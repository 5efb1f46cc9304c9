import { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Replicas, type Session } from '../../../engine/gateway/replicas.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

test('a connection that brings session after session keeps none but the last', async () => {
  const died: string[] = []
  const replicas = new Replicas(
    (session, death) => void died.push(`${session.id} ${death}`),
    () => false,
  )
  const replica = replicas.of({ agent: 'a', replica: 1 })
  const socket = new Socket()
  const enter = (n: number): WeakRef<Session> => new WeakRef(replicas.enter(replica, `session-${n}`, socket))
  const all = Array.from({ length: 50 }, (_, n) => enter(n))
  expect(died).toHaveLength(49)
  // A WeakRef holds what it was made with until the turn ends.
  await sleep(10)
  collect()
  expect(all.filter((it) => it.deref() !== undefined)).toHaveLength(1)
  expect(replica.session?.id).toBe('session-49')
  socket.emit('close')
  await expect.poll(() => died.at(-1), { timeout: 10_000 }).toBe('session-49 closed')
  expect(died).toHaveLength(50)
  replicas.close()
})
