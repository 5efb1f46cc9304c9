import { afterAll, beforeAll, expect, test } from 'vitest'
import { desired } from '../../../engine/desired.ts'
import { packageImages } from '../../../engine/images/images.ts'
import { readRecord, takeLock } from '../../../engine/lock.ts'
import type { ContainerRuntime } from '../../../engine/ports.ts'
import type { ProjectRecord } from '../../../engine/record.ts'
import { SECCOMP } from '../../../engine/seccomp.ts'
import { newStore, readStore, writeSecrets } from '../../../engine/secrets/store.ts'
import { cleanup, runtime as connect, uniqueProject } from '../../support/docker.ts'
import { agent, project, record } from '../../support/project.ts'

const name = uniqueProject('t-lock')
const signal = new AbortController().signal
let runtime: ContainerRuntime
let state: ProjectRecord

/** The holder alone, as `up` makes it first. */
beforeAll(async () => {
  runtime = await connect()
  const images = packageImages(runtime)
  await images.ensure(signal, () => undefined)
  state = record(
    { ...project({ agents: [agent('a')] }), name },
    { images: await images.references(), data_root: (await runtime.info()).data_root },
  )
  const all = desired(state, SECCOMP)
  for (const volume of all.volumes) await runtime.createVolume(volume)
  const holder = all.containers[0]?.spec
  if (holder === undefined) throw new Error('no holder')
  await runtime.createContainer(holder)
  await runtime.start(holder.name)
}, 300_000)
afterAll(async () => await cleanup(name), 60_000)

test('the record is written under the lock and read back; a record of a newer version is refused by name', async () => {
  expect(await readRecord(runtime, name, signal)).toBeNull()
  const lock = await takeLock(runtime, name, { timeout_ms: 5_000, signal })
  await lock.writeRecord(state)
  expect(await readRecord(runtime, name, signal)).toEqual(state)
  await lock.writeRecord({ ...state, version: 99, written_by: '9.9.9' })
  lock.release()
  await expect(readRecord(runtime, name, signal)).rejects.toMatchObject({ code: 'AG4010', message: expect.stringContaining('9.9.9') })
  const again = await takeLock(runtime, name, { timeout_ms: 5_000, signal })
  await again.writeRecord(state)
  again.release()
})

test('one holder at a time; a holder that dies leaves nothing behind', async () => {
  const first = await takeLock(runtime, name, { timeout_ms: 5_000, signal })
  await expect(takeLock(runtime, name, { timeout_ms: 0, signal })).rejects.toMatchObject({ code: 'AG4011' })
  const waiting = takeLock(runtime, name, { timeout_ms: 10_000, signal })
  first.release()
  const second = await waiting
  second.release()
})

test('secrets lie in a folder per container, for its user alone, and the values come back for a later replica', async () => {
  const store = { ...newStore(), values: { key: Buffer.from('sesame').toString('base64') } }
  const all = desired(
    { ...state, project: { ...state.project, agents: { a: agent('a', { secrets: [{ source: 'key', target: 'k' }] }) } } },
    SECCOMP,
  )
  const one = all.containers.filter((it) => it.group === 'a')
  await writeSecrets({ runtime, project: name, signal, kept: null, store, live: new Set() }, one)
  expect(await readStore(runtime, name, signal)).toEqual(store)
  const holder = `${name}-agentctl-secrets-1`
  const own = await runtime.exec(holder, ['sh', '-c', `cd /secrets/${name}-a-1 && stat -c '%a %u %n' . *`], { user: '10001:10001' })
  expect(own.stdout.toString()).toBe('755 0 .\n400 10001 agentctl-token\n400 10001 k\n')
  // Neither another user nor the holder's own root, which has no capability, may look into it.
  for (const user of ['10002:10002', '0:0'])
    expect((await runtime.exec(holder, ['cat', `/secrets/${name}-a-1/k`], { user })).exit_code).not.toBe(0)
  expect((await runtime.exec(holder, ['cat', '/secrets/.agentctl-store'], { user: '10001:10001' })).exit_code).not.toBe(0)
})
