/** The peer of bench/up.ts: dockerode alone, in parallel, with the bodies that our adapter sends, and the same readiness. */
import { readFileSync } from 'node:fs'
import Docker from 'dockerode'
import { openControl } from '../engine/control.ts'
import type { ContainerSpec, Endpoint, NetworkSpec } from '../engine/ports.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { containerBody, endpointBody, networkBody } from '../engine/runtimes/docker/create-body.ts'

interface Work {
  project: string
  gateway: string
  features: { hasIsolatedGateway: boolean }
  networks: NetworkSpec[]
  joins: Endpoint[]
  agents: ContainerSpec[]
  replicas: string[]
}
const work = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as Work
const docker = new Docker()
await Promise.all(
  work.networks.map(async (network) => {
    await docker.createNetwork(networkBody(network, work.features) as unknown as Docker.NetworkCreateOptions)
    const join = work.joins.find((it) => it.network === network.name)
    if (join !== undefined)
      await docker
        .getNetwork(join.network)
        .connect({ Container: work.gateway, ...(endpointBody(join) as object) } as Docker.NetworkConnectOptions)
  }),
)
await Promise.all(
  work.agents.map(async (spec) => {
    const container = await docker.createContainer({ name: spec.name, ...containerBody(spec) } as Docker.ContainerCreateOptions)
    for (const endpoint of spec.endpoints.slice(1))
      await docker
        .getNetwork(endpoint.network)
        .connect({ Container: spec.name, ...(endpointBody(endpoint) as object) } as Docker.NetworkConnectOptions)
    await container.start()
  }),
)
const abort = new AbortController()
const control = await openControl(await connectDocker({ environment: process.env, signal: abort.signal }), work.project, abort.signal)
for (let missing = 1; missing > 0; ) {
  const connected = new Set((await control.replicas()).filter((it) => it.connected).map((it) => `${it.agent}:${it.replica}`))
  missing = work.replicas.filter((it) => !connected.has(it)).length
  if (missing > 0) await new Promise((resolve) => setTimeout(resolve, 50))
}
process.exit(0)
