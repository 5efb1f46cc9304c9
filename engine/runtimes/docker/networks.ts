/** Networks and their endpoints. */
import type { ContainerRuntime } from '../../ports.ts'
import type { Connection } from './connection.ts'
import { type EngineFeatures, endpointBody, networkBody } from './create-body.ts'
import { fields, list, text } from '../../fields.ts'
import { observedNetwork } from './observed.ts'
import { projectFilter, retry } from './requests.ts'

type NetworkCalls = Pick<ContainerRuntime, 'networks' | 'createNetwork' | 'removeNetwork' | 'connect' | 'disconnect'>

export function networkCalls(connection: Connection, engine: EngineFeatures): NetworkCalls {
  return {
    networks: async (project, signal) => {
      // All of the engine's: subnets must not clash with anybody's.
      const query: { [name: string]: string } = project === null ? {} : { filters: projectFilter(project) }
      return list(await connection.json({ doing: 'list networks', method: 'GET', path: '/networks', query, signal })).map(observedNetwork)
    },
    createNetwork: async (spec, signal) => {
      const answer = await connection.json({
        doing: `create network "${spec.name}"`,
        method: 'POST',
        path: '/networks/create',
        body: networkBody(spec, engine),
        signal,
      })
      return text(fields(answer)['Id'])
    },
    removeNetwork: (name, signal) =>
      retry(signal, async (isLast) => {
        try {
          await connection.jsonOrNull({ doing: `remove network "${name}"`, method: 'DELETE', path: `/networks/${name}`, signal })
          return true
        } catch (error) {
          if (!isLast && /active endpoints/.test(String(error))) return false
          throw error
        }
      }),
    connect: async (container, endpoint, signal) => {
      const doing = `connect ${container} to network "${endpoint.network}"`
      const body = { Container: container, EndpointConfig: endpointBody(endpoint) }
      await connection.json({ doing, method: 'POST', path: `/networks/${endpoint.network}/connect`, body, signal })
    },
    disconnect: async (container, network, signal) => {
      const doing = `disconnect ${container} from network "${network}"`
      await connection.json({
        doing,
        method: 'POST',
        path: `/networks/${network}/disconnect`,
        body: { Container: container, Force: true },
        signal,
      })
    },
  }
}
