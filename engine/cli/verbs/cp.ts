import { lstat, mkdir, stat } from 'node:fs/promises'
import { basename, dirname, join, posix, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { DEFAULTS } from '../../../spec/model.ts'
import { AgentctlError, EXIT } from '../../errors.ts'
import { LABEL } from '../../names.ts'
import type { ContainerRuntime, ExecStream, ObservedContainer } from '../../ports.ts'
import { readRecord, type VerbContext } from '../../verbs.ts'
import { type Owner, packTree, unpackTree } from '../archive.ts'
import { usage } from '../failure.ts'
import { clean } from '../io.ts'
import { oneContainer } from '../target.ts'
import { type Run, value } from '../verb.ts'

/** What `test -d` and tar need at most, apart from the copying itself. */
const PROBE_MS = 15_000

interface Remote {
  readonly name: string
  readonly path: string
}

export const cp: Run = async (session, call) => {
  const [source = '', target = ''] = call.args
  const [from, to] = [parseRemote(source), parseRemote(target)]
  if ((from === null) === (to === null))
    throw usage(
      'cp expects one path of a container and one of this machine',
      'NAME:PATH is in a container: agentctl cp reporter:/out/report.md .',
    )
  const remote = (from ?? to) as Remote
  const project = await session.project()
  const ctx = await session.verbs()
  const container = await oneContainer(ctx, project, remote.name, value(call, 'index'), { running: true })
  if (to !== null) await copyIn(ctx, project, container, resolve(session.io.cwd, source), to.path)
  else await copyOut(ctx, container, remote.path, session.io.cwd, target)
  await session.out.print({ container: container.name, source, target }, () => '')
  return EXIT.done
}

/** `C:\x` is nothing here; a name of one letter is still a name. */
function parseRemote(text: string): Remote | null {
  const match = /^([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)$/s.exec(text)
  if (match === null) return null
  return { name: match[1] ?? '', path: posix.resolve('/', match[2] ?? '') }
}

async function isFolder(runtime: ContainerRuntime, container: string, path: string, signal: AbortSignal): Promise<boolean> {
  return (await runtime.exec(container, ['test', '-d', path], { timeout_ms: PROBE_MS }, signal)).exit_code === 0
}

/** By tar inside the container, as its own user: what arrives belongs to that user, and reaches volumes and tmpfs alike. */
async function copyIn(ctx: VerbContext, project: string, container: ObservedContainer, source: string, path: string): Promise<void> {
  const { runtime, signal } = ctx
  await lstat(source).catch((cause) =>
    Promise.reject(
      usage(`cannot read ${source} (${cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown'})`, 'Check the path.'),
    ),
  )
  const into = await isFolder(runtime, container.name, path, signal)
  const [folder, name] = into ? [path, basename(source)] : [posix.dirname(path), posix.basename(path)]
  const owner = await ownerOf(ctx, project, container)
  const stream = await runtime.execStream(container.name, ['tar', '-x', '--no-same-owner', '-f', '-', '-C', folder], {}, signal)
  const done = finish(stream, `copy to ${container.name}:${path}`)
  const sent = pipeline(packTree(source, name, owner, signal), stream.stdin)
  const unread = sent.then(
    () => null,
    (error) =>
      isClosed(error)
        ? null
        : new AgentctlError('AG1001', `cannot copy ${source}: ${reason(error)}`, { hint: 'Check its permissions.', cause: error }),
  )
  await bothEnded(done, unread)
}

/** What went wrong on this machine says more than what tar made of it. */
async function bothEnded(remote: Promise<void>, local: Promise<AgentctlError | null>): Promise<void> {
  const failure = await remote.then(
    () => null,
    (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
  )
  const problem = (await local) ?? failure
  if (problem !== null) throw problem
}

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** tar ended first; its exit code is what counts. */
const isClosed = (error: unknown): boolean =>
  error instanceof Error &&
  'code' in error &&
  ['EPIPE', 'ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE', 'ERR_STREAM_DESTROYED'].includes(String(error.code))

async function ownerOf(ctx: VerbContext, project: string, { labels }: ObservedContainer): Promise<Owner> {
  const agent = labels[LABEL.agent]
  if (agent === undefined) return { uid: 0, gid: 0 }
  const user = (await readRecord(ctx, project))?.project.agents[agent]?.user ?? DEFAULTS.agent.user
  const [uid = '0', gid = uid] = user.split(':')
  return { uid: Number(uid), gid: Number(gid) }
}

async function copyOut(
  { runtime, signal }: VerbContext,
  container: ObservedContainer,
  path: string,
  cwd: string,
  target: string,
): Promise<void> {
  const local = resolve(cwd, target)
  const info = await stat(local).catch(() => null)
  const wantsFolder = target.endsWith('/') || target === '.' || target.endsWith('/.')
  if (wantsFolder && info === null) await mkdir(local, { recursive: true })
  const into = wantsFolder || info?.isDirectory() === true
  const [folder, name] = into ? [local, posix.basename(path) || container.name] : [dirname(local), basename(local)]
  if (!(await isLocalFolder(folder))) throw usage(`${folder} is not a folder`, 'Make it first.')
  const stream = await runtime.execStream(
    container.name,
    ['tar', '-c', '-f', '-', '-C', posix.dirname(path), '--', `./${posix.basename(path)}`],
    {},
    signal,
  )
  stream.stdin.end()
  const done = finish(stream, `copy ${container.name}:${path}`)
  let result = 0
  const unpacked = unpackTree(stream.stdout, folder, name).then(
    (count) => {
      result = count
      return null
    },
    (error) => {
      // It may go on for ever.
      stream.close()
      if (error instanceof AgentctlError) return error
      return new AgentctlError('AG4005', `cannot copy to ${join(folder, name)}: ${reason(error)}`, {
        hint: 'Check its permissions and the free space.',
        cause: error,
      })
    },
  )
  await bothEnded(done, unpacked)
  if (result === 0 && !(await isLocalFolder(join(folder, name))))
    throw new AgentctlError('AG4005', `${container.name}:${path} holds nothing that can be copied`, {
      hint: 'Regular files, folders and links inside of what is copied are.',
    })
}

const isLocalFolder = async (path: string): Promise<boolean> => (await stat(path).catch(() => null))?.isDirectory() === true

async function finish(stream: ExecStream, doing: string): Promise<void> {
  let complaint = ''
  stream.stderr.on('data', (chunk: Buffer) => {
    if (complaint.length < 2_000) complaint += chunk.toString('utf8')
  })
  const code = await stream.exit
  if (code === 0) return
  const hint =
    code === 126 || code === 127
      ? 'The image has no tar; mount the files as a volume instead.'
      : 'Agents can write to /workspace, /tmp and their volumes.'
  throw new AgentctlError('AG4005', `cannot ${doing}: ${clean(complaint.trim()) || `tar exited with ${code}`}`, { hint })
}
