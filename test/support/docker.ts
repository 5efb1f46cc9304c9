/** The engine for integration and e2e tests: one connection, projects with names of their own, and nothing left behind. */
import { randomBytes } from 'node:crypto'
import { ensureImages, type ImageReferences } from '../../engine/images/ensure.ts'
import { LABEL } from '../../engine/names.ts'
import type { ContainerRuntime } from '../../engine/ports.ts'
import { connectDocker } from '../../engine/runtimes/docker/connect.ts'

let connecting: Promise<ContainerRuntime> | null = null
let building: Promise<ImageReferences> | null = null

/** Fails the test when no engine answers: without one nothing is proved. */
export function runtime(): Promise<ContainerRuntime> {
  connecting ??= connectDocker({ environment: process.env })
  return connecting
}

/** Our own images, built if they are missing. */
export async function images(): Promise<ImageReferences> {
  const engine = await runtime()
  building ??= ensureImages(engine, { emit: () => undefined, signal: AbortSignal.timeout(600_000) })
  return building
}

/** Projects of tests, so that several suites share one engine. */
export const uniqueProject = (prefix: string): string => `${prefix}-${randomBytes(4).toString('hex')}`

/** Force-removes all that carries the project's label; throws when something is left. */
export async function cleanup(project: string): Promise<void> {
  const engine = await runtime()
  // A controller would bring the others back while they are removed.
  const containers = [...(await engine.containers(project))].sort((a, b) => order(a.labels) - order(b.labels))
  const [controllers, others] = [
    containers.filter(({ labels }) => order(labels) === 0),
    containers.filter(({ labels }) => order(labels) !== 0),
  ]
  for (const group of [controllers, others]) await Promise.all(group.map(({ id }) => engine.remove(id)))
  // What a controller made between the list and its end.
  await Promise.all((await engine.containers(project)).map(({ id }) => engine.remove(id)))
  await Promise.all([
    ...(await engine.networks(project)).map(({ name }) => engine.removeNetwork(name)),
    ...(await engine.volumes(project)).map(({ name }) => engine.removeVolume(name)),
  ])
  const left = await leftovers(project)
  if (left.length > 0) throw new Error(`cleanup of ${project} left ${left.join(', ')}`)
}

const order = (labels: { readonly [name: string]: string }): number => (labels[LABEL.kind] === 'controller' ? 0 : 1)

/** What is left of a project, as names: [] is clean. */
export async function leftovers(project: string): Promise<readonly string[]> {
  const engine = await runtime()
  const [containers, networks, volumes] = await Promise.all([engine.containers(project), engine.networks(project), engine.volumes(project)])
  return [
    ...containers.map(({ name }) => `container:${name}`),
    ...networks.map(({ name }) => `network:${name}`),
    ...volumes.map(({ name }) => `volume:${name}`),
  ].sort()
}

/** Until `check` gives something else than null, false or undefined; what it gave is returned. */
export async function eventually<T>(check: () => Promise<T | null | false | undefined>, timeout_ms: number, what: string): Promise<T> {
  const end = Date.now() + timeout_ms
  for (;;) {
    const value = await check()
    if (value !== null && value !== false && value !== undefined) return value
    if (Date.now() > end) throw new Error(`not within ${timeout_ms} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
