/** Volumes. */
import { AgentctlError } from '../../errors.ts'
import { LABEL } from '../../names.ts'
import type { ContainerRuntime } from '../../ports.ts'
import type { Connection } from './connection.ts'
import { volumeBody } from './create-body.ts'
import { fields, list, texts } from '../../fields.ts'
import { observedVolume } from './observed.ts'
import { isStatus, projectFilter, retry } from './requests.ts'

type VolumeCalls = Pick<ContainerRuntime, 'volumes' | 'createVolume' | 'volume' | 'removeVolume'>

export function volumeCalls(connection: Connection): VolumeCalls {
  return {
    volumes: async (project, signal) => {
      const answer = await connection.json({
        doing: 'list volumes',
        method: 'GET',
        path: '/volumes',
        query: { filters: projectFilter(project) },
        signal,
      })
      return list(fields(answer)['Volumes']).map(observedVolume)
    },
    createVolume: async (spec, signal) => {
      const answer = await connection.json({
        doing: `create volume "${spec.name}"`,
        method: 'POST',
        path: '/volumes/create',
        body: volumeBody(spec),
        signal,
      })
      // The engine answers with the one that exists; a stranger's data must not become ours.
      const project = spec.labels[LABEL.project]
      if (project !== undefined && texts(fields(answer)['Labels'])[LABEL.project] !== project) {
        throw new AgentctlError('AG4014', `A volume "${spec.name}" exists and is not ours`, {
          hint: 'Remove or rename it, or choose another project name with -p.',
        })
      }
      return observedVolume(answer)
    },
    volume: async (name, signal) => {
      const answer = await connection.jsonOrNull({ doing: `inspect volume "${name}"`, method: 'GET', path: `/volumes/${name}`, signal })
      return answer === null ? null : observedVolume(answer)
    },
    removeVolume: (name, signal) =>
      retry(signal, async (isLast) => {
        try {
          await connection.jsonOrNull({ doing: `remove volume "${name}"`, method: 'DELETE', path: `/volumes/${name}`, signal })
          return true
        } catch (error) {
          if (!isLast && isStatus(error, 409)) return false
          throw error
        }
      }),
  }
}
