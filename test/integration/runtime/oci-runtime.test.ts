/** `runtime:` on an engine of the test's own, which has runc under a second name. gVisor and crun do not run on this kernel: they are the same field. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { agentPosture } from '../../../engine/harden.ts'
import { DiagnosticsError } from '../../../engine/errors.ts'
import type { ContainerRuntime } from '../../../engine/ports.ts'
import { compare } from '../../../engine/posture/controls.ts'
import { compareProbe } from '../../../engine/posture/probe.ts'
import { effectiveOf, Images, probe } from '../../../engine/posture/prove.ts'
import { connectDocker } from '../../../engine/runtimes/docker/connect.ts'
import { SECCOMP } from '../../../engine/seccomp.ts'
import { prepareUp } from '../../../engine/up.ts'
import { type SecondEngine, secondEngine } from '../../chaos/engine.ts'
import { containerSpec } from '../../support/container-spec.ts'
import { images } from '../../support/docker.ts'
import { loadText } from '../../unit/spec/loading.ts'

let second: SecondEngine
let engine: ContainerRuntime
let ours: { readonly agent: string; readonly engine: string }

beforeAll(async () => {
  ours = await images()
  const runc = (await promisify(execFile)('sh', ['-c', 'PATH=$PATH:/usr/sbin:/sbin command -v runc'])).stdout.trim()
  second = await secondEngine({ flags: ['--add-runtime', `other=${runc}`] })
  engine = await connectDocker({ environment: { DOCKER_HOST: second.host } })
}, 600_000)
afterAll(async () => await second?.[Symbol.asyncDispose](), 120_000)

test('a replica runs under the runtime that the file names, hardened and proved as under the default', async () => {
  const signal = AbortSignal.timeout(60_000)
  const spec = containerSpec({
    project: 't-runtime',
    image: ours.agent,
    ...agentPosture({ hardening: { runtime: 'other' } }, { seccomp: SECCOMP, cpus: 2, profiles: {} }),
    sysctls: {},
  })
  await engine.createContainer(spec)
  await engine.start(spec.name)
  expect(await engine.inspect(spec.name)).toMatchObject({ HostConfig: { Runtime: 'other' } })
  const looked = await effectiveOf(engine, new Images(engine), spec.name, signal)
  expect(compare(spec, looked)).toEqual([])
  expect(compareProbe(spec, await probe(engine, spec, ours, signal))).toEqual([])
  expect(compare({ ...spec, runtime: 'runsc' }, looked)).toEqual([{ control: 'runtime', declared: 'runsc', effective: 'other' }])
  await engine.remove(spec.name)
}, 120_000)

test('one that the engine does not have is an error with place and remedy, before anything is made', async () => {
  const loaded = loadText('agents:\n  a:\n    runtime: runsc\n  b: { runtime: other }\n')
  if (loaded.project === null) throw new Error('does not load')
  const ctx = { runtime: engine, signal: AbortSignal.timeout(60_000), emit: () => undefined, environment: {} }
  const options = { images: { references: async () => ours, ensure: async () => undefined }, version: '0', places: loaded.places }
  const error = await prepareUp(ctx, loaded.project, options).then(
    () => null,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(DiagnosticsError)
  expect((error as DiagnosticsError).diagnostics).toMatchObject([
    {
      code: 'AG3005',
      message: 'agent "a" asks for the runtime "runsc", which the engine does not have',
      place: { line: 3, column: 14 },
      help: expect.stringMatching(/^It has .*\bother\b.*\. Install runsc on its machine, register it under "runtimes"/),
    },
  ])
  expect(await engine.containers(null)).toEqual([])
}, 60_000)
