/** Containers: made, started, watched from outside, and what is done inside them. */
import { AgentctlError } from '../../errors.ts'
import type { ContainerRuntime } from '../../ports.ts'
import { filesArchive } from './archive.ts'
import { containerBody, seriousWarnings } from './create-body.ts'
import type { Connection } from './connection.ts'
import { openExec, runExec } from './exec.ts'
import { fields, list, text } from '../../fields.ts'
import { observedContainer } from './observed.ts'
import { isStatus, projectFilter, retry } from './requests.ts'

type ContainerCalls = Pick<
  ContainerRuntime,
  | 'containers'
  | 'createContainer'
  | 'start'
  | 'stop'
  | 'remove'
  | 'inspect'
  | 'exec'
  | 'execStream'
  | 'putFiles'
  | 'putArchive'
  | 'getArchive'
>

export function containerCalls(connection: Connection): ContainerCalls {
  const remove: ContainerRuntime['remove'] = async (container, signal) => {
    const call = {
      doing: `remove container "${container}"`,
      method: 'DELETE',
      path: `/containers/${container}`,
      query: { force: true, v: true },
      signal,
    } as const
    await retry(signal, async () => {
      try {
        await connection.jsonOrNull(call)
        return true
      } catch (error) {
        // Someone else is removing it: it is gone when the name is.
        if (isStatus(error, 409) && /already in progress/.test(String(error))) return false
        throw error
      }
    })
  }
  const put = async (
    container: string,
    directory: string,
    file: Buffer | NodeJS.ReadableStream,
    signal: AbortSignal | undefined,
  ): Promise<void> => {
    await connection.json({
      doing: `write into "${directory}" of ${container}`,
      method: 'PUT',
      path: `/containers/${container}/archive`,
      query: { path: directory },
      file,
      signal,
    })
  }
  return {
    remove,
    containers: async (project, signal) => {
      const query = { all: true, filters: projectFilter(project) }
      return list(await connection.json({ doing: 'list containers', method: 'GET', path: '/containers/json', query, signal })).map(
        observedContainer,
      )
    },
    createContainer: async (spec, signal) => {
      const doing = `create container "${spec.name}"`
      const answer = fields(
        await connection.json({
          doing,
          method: 'POST',
          path: '/containers/create',
          query: { name: spec.name },
          body: containerBody(spec),
          signal,
        }),
      )
      const id = text(answer['Id'])
      const warnings = seriousWarnings(list(answer['Warnings']).map(text))
      if (warnings.length === 0) return id
      await remove(id)
      throw new AgentctlError('AG4006', `The engine would not enforce what container "${spec.name}" asks for: ${warnings.join(' ')}`, {
        hint: 'Use an engine that enforces it; `agentctl doctor` names what is missing.',
      })
    },
    start: async (container, signal) => {
      await connection.json({ doing: `start container "${container}"`, method: 'POST', path: `/containers/${container}/start`, signal })
    },
    stop: async (container, grace_s, signal) => {
      const call = {
        doing: `stop container "${container}"`,
        method: 'POST',
        path: `/containers/${container}/stop`,
        query: { t: grace_s },
        signal,
      } as const
      await connection.json({ ...call, timeout_ms: (grace_s + 60) * 1000, slow: true })
    },
    inspect: (container, signal) =>
      connection.json({ doing: `inspect container "${container}"`, method: 'GET', path: `/containers/${container}/json`, signal }),
    exec: (container, command, options, signal) => runExec(connection, container, command, options ?? {}, signal),
    execStream: (container, command, options, signal) => openExec(connection, container, command, { ...options, stdin: true }, signal),
    putFiles: async (container, directory, files, signal) => put(container, directory, await filesArchive(directory, files), signal),
    putArchive: (container, directory, tar, signal) => put(container, directory, tar, signal),
    getArchive: (container, path, signal) =>
      connection.stream({
        doing: `read "${path}" of ${container}`,
        method: 'GET',
        path: `/containers/${container}/archive`,
        query: { path },
        signal,
      }),
  }
}
