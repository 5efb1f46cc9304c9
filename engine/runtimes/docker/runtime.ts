/** The port `ContainerRuntime` on the Docker Engine API: one engine call per method, no decisions. */
import type { ContainerRuntime } from '../../ports.ts'
import type { Connection } from './connection.ts'
import { containerCalls } from './containers.ts'
import type { EngineFeatures } from './create-body.ts'
import { fields, list, number, text } from '../../fields.ts'
import { imageCalls } from './images.ts'
import { joinCall } from './join.ts'
import { networkCalls } from './networks.ts'
import { streamCalls } from './streams.ts'
import { volumeCalls } from './volumes.ts'

export interface Engine extends EngineFeatures {
  readonly version: string
  readonly api_version: string
}

export function dockerRuntime(connection: Connection, engine: Engine): ContainerRuntime {
  const containers = containerCalls(connection)
  const streams = streamCalls(connection)
  return {
    ...imageCalls(connection),
    ...containers,
    ...joinCall(connection, { ...containers, ...streams }),
    ...networkCalls(connection, engine),
    ...volumeCalls(connection),
    ...streams,
    info: async (signal) => {
      const info = fields(await connection.json({ doing: 'describe itself', method: 'GET', path: '/info', signal }))
      const options = list(info['SecurityOptions']).map(text)
      return {
        version: engine.version,
        api_version: engine.api_version,
        cgroup_version: info['CgroupVersion'] === '2' ? 2 : 1,
        security_options: options,
        runtimes: Object.keys(fields(info['Runtimes'])).sort(),
        rootless: options.some((option) => option.startsWith('name=rootless')),
        endpoint: connection.endpoint,
        cpus: number(info['NCPU']),
        memory: number(info['MemTotal']),
        data_root: text(info['DockerRootDir']),
        limits: { memory: info['MemoryLimit'] === true, cpus: info['CpuCfsQuota'] === true, pids: info['PidsLimit'] === true },
      }
    },
  }
}
