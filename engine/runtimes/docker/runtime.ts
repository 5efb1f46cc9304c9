/** The port `ContainerRuntime` on the Docker Engine API: one engine call per method, no decisions. */
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentctlError } from '../../errors.ts'
import { LABEL } from '../../names.ts'
import type { ContainerRuntime, EngineEvent } from '../../ports.ts'
import { filesArchive } from './archive.ts'
import type { Connection } from './connection.ts'
import { containerBody, type EngineFeatures, endpointBody, networkBody, seriousWarnings, volumeBody } from './create-body.ts'
import { EVENT_FILTER, engineEvent, jsonLines } from './events.ts'
import { openExec, runExec } from './exec.ts'
import { interrupted, statusOf, toAgentctlError } from './failure.ts'
import { fields, list, number, text, texts } from './fields.ts'
import { type Frame, FrameReader } from './frames.ts'
import { imageCalls } from './images.ts'
import { observedContainer, observedNetwork, observedVolume } from './observed.ts'

export interface Engine extends EngineFeatures {
  readonly version: string
  readonly api_version: string
}

/** An endpoint or a mount is released a moment after its container is gone. */
const RELEASE_WAIT_MS = 10_000

const projectFilter = (project: string | null): string => JSON.stringify({ label: [project === null ? LABEL.project : `${LABEL.project}=${project}`] })
const isStatus = (error: unknown, status: number): boolean => error instanceof AgentctlError && statusOf(error.cause) === status

export function dockerRuntime(connection: Connection, engine: Engine): ContainerRuntime {
  return {
    ...imageCalls(connection),
    ...containerCalls(connection),
    ...networkCalls(connection, engine),
    ...volumeCalls(connection),
    ...streamCalls(connection),
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

type ContainerCalls = Pick<ContainerRuntime, 'containers' | 'createContainer' | 'start' | 'stop' | 'remove' | 'inspect' | 'exec' | 'execStream' | 'putFiles' | 'putArchive' | 'getArchive'>

function containerCalls(connection: Connection): ContainerCalls {
  const remove: ContainerRuntime['remove'] = async (container, signal) => {
    const call = { doing: `remove container "${container}"`, method: 'DELETE', path: `/containers/${container}`, query: { force: true, v: true }, signal } as const
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
  const put = async (container: string, directory: string, file: Buffer | NodeJS.ReadableStream, signal: AbortSignal | undefined): Promise<void> => {
    await connection.json({ doing: `write into "${directory}" of ${container}`, method: 'PUT', path: `/containers/${container}/archive`, query: { path: directory }, file, signal })
  }
  return {
    remove,
    containers: async (project, signal) => {
      const query = { all: true, filters: projectFilter(project) }
      return list(await connection.json({ doing: 'list containers', method: 'GET', path: '/containers/json', query, signal })).map(observedContainer)
    },
    createContainer: async (spec, signal) => {
      const doing = `create container "${spec.name}"`
      const answer = fields(await connection.json({ doing, method: 'POST', path: '/containers/create', query: { name: spec.name }, body: containerBody(spec), signal }))
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
      const call = { doing: `stop container "${container}"`, method: 'POST', path: `/containers/${container}/stop`, query: { t: grace_s }, signal } as const
      await connection.json({ ...call, timeout_ms: (grace_s + 60) * 1000, slow: true })
    },
    inspect: (container, signal) => connection.json({ doing: `inspect container "${container}"`, method: 'GET', path: `/containers/${container}/json`, signal }),
    exec: (container, command, options, signal) => runExec(connection, container, command, options ?? {}, signal),
    execStream: (container, command, options, signal) => openExec(connection, container, command, { ...options, stdin: true }, signal),
    putFiles: async (container, directory, files, signal) => put(container, directory, await filesArchive(directory, files), signal),
    putArchive: (container, directory, tar, signal) => put(container, directory, tar, signal),
    getArchive: (container, path, signal) =>
      connection.stream({ doing: `read "${path}" of ${container}`, method: 'GET', path: `/containers/${container}/archive`, query: { path }, signal }),
  }
}

type NetworkCalls = Pick<ContainerRuntime, 'networks' | 'createNetwork' | 'removeNetwork' | 'connect' | 'disconnect'>

function networkCalls(connection: Connection, engine: Engine): NetworkCalls {
  return {
    networks: async (project, signal) => {
      // All of the engine's: subnets must not clash with anybody's.
      const query: { [name: string]: string } = project === null ? {} : { filters: projectFilter(project) }
      return list(await connection.json({ doing: 'list networks', method: 'GET', path: '/networks', query, signal })).map(observedNetwork)
    },
    createNetwork: async (spec, signal) => {
      const answer = await connection.json({ doing: `create network "${spec.name}"`, method: 'POST', path: '/networks/create', body: networkBody(spec, engine), signal })
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
      await connection.json({ doing, method: 'POST', path: `/networks/${network}/disconnect`, body: { Container: container, Force: true }, signal })
    },
  }
}

type VolumeCalls = Pick<ContainerRuntime, 'volumes' | 'createVolume' | 'volume' | 'removeVolume'>

function volumeCalls(connection: Connection): VolumeCalls {
  return {
    volumes: async (project, signal) => {
      const answer = await connection.json({ doing: 'list volumes', method: 'GET', path: '/volumes', query: { filters: projectFilter(project) }, signal })
      return list(fields(answer)['Volumes']).map(observedVolume)
    },
    createVolume: async (spec, signal) => {
      const answer = await connection.json({ doing: `create volume "${spec.name}"`, method: 'POST', path: '/volumes/create', body: volumeBody(spec), signal })
      // The engine answers with the one that exists; a stranger's data must not become ours.
      const project = spec.labels[LABEL.project]
      if (project !== undefined && texts(fields(answer)['Labels'])[LABEL.project] !== project) {
        throw new AgentctlError('AG4014', `A volume "${spec.name}" exists and is not ours`, { hint: 'Remove or rename it, or choose another project name with -p.' })
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

type StreamCalls = Pick<ContainerRuntime, 'events' | 'logs'>

function streamCalls(connection: Connection): StreamCalls {
  return {
    async *events(project, since, signal): AsyncGenerator<EngineEvent> {
      const doing = 'report events'
      const filters = JSON.stringify({ type: ['container'], event: EVENT_FILTER, label: [`${LABEL.project}=${project}`] })
      const stream = await connection.stream({ doing, method: 'GET', path: '/events', query: { since: since.toFixed(6), filters }, signal })
      try {
        for await (const line of jsonLines(stream)) {
          const event = engineEvent(line)
          if (event !== null) yield event
        }
      } catch (error) {
        throw signal.aborted ? interrupted(doing, signal.reason) : toAgentctlError(error, doing, connection.endpoint)
      }
      if (signal.aborted) throw interrupted(doing, signal.reason)
      throw new AgentctlError('AG4001', `The engine at ${connection.endpoint} closed its stream of events`, { hint: 'Start it again; `agentctl doctor` shows what was tried.' })
    },
    async *logs(container, options, signal): AsyncGenerator<Frame> {
      const doing = `read the logs of ${container}`
      const query = {
        stdout: true,
        stderr: true,
        follow: options.follow,
        timestamps: options.timestamps,
        tail: options.tail === null ? 'all' : String(options.tail),
        ...(options.since === undefined ? {} : { since: options.since }),
      }
      const stream = await connection.stream({ doing, method: 'GET', path: `/containers/${container}/logs`, query, signal })
      const reader = new FrameReader()
      try {
        for await (const chunk of stream) yield* reader.read(chunk)
      } catch (error) {
        throw signal.aborted ? interrupted(doing, signal.reason) : toAgentctlError(error, doing, connection.endpoint)
      }
    },
  }
}

/** Until `attempt` says true; the last time it is told so, to throw what it got. */
async function retry(signal: AbortSignal | undefined, attempt: (isLast: boolean) => Promise<boolean>): Promise<void> {
  const end = Date.now() + RELEASE_WAIT_MS
  for (let pause = 25; ; pause = Math.min(pause * 2, 500)) {
    const isLast = Date.now() >= end
    if ((await attempt(isLast)) || isLast) return
    await sleep(pause)
    if (signal?.aborted) throw interrupted('release it', signal.reason)
  }
}
