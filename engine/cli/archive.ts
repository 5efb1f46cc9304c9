/** Tar to and from the host's files. What comes out of an agent's container is hostile: it may not leave the folder that it is put into. */
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, mkdir, readdir, readlink, rm, stat, symlink } from 'node:fs/promises'
import { dirname, join, normalize, relative, resolve, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { extract, type Pack, pack } from 'tar-stream'
import { AgentctlError } from '../errors.ts'

export interface Owner {
  readonly uid: number
  readonly gid: number
}

/** `source` as an archive whose top entry is called `name`. */
export function packTree(source: string, name: string, owner: Owner, signal: AbortSignal): Pack {
  const tar = pack()
  addTree(tar, source, name, owner, signal).then(
    () => tar.finalize(),
    (error) => tar.destroy(error instanceof Error ? error : new Error(String(error))),
  )
  return tar
}

async function addTree(tar: Pack, path: string, name: string, owner: Owner, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const info = await lstat(path)
  const header = { name, mode: info.mode & 0o777, mtime: info.mtime, ...owner }
  if (info.isDirectory()) {
    await entry(tar, { ...header, name: `${name}/`, type: 'directory' })
    for (const child of (await readdir(path)).sort()) await addTree(tar, join(path, child), `${name}/${child}`, owner, signal)
  } else if (info.isSymbolicLink()) await entry(tar, { ...header, type: 'symlink', linkname: await readlink(path) })
  else if (info.isFile())
    await pipeline(createReadStream(path, { end: Math.max(0, info.size - 1) }), tar.entry({ ...header, size: info.size }))
}

const entry = (tar: Pack, header: Parameters<Pack['entry']>[0]): Promise<void> =>
  new Promise((resolved, reject) => {
    tar.entry(header, (error) => (error === null || error === undefined ? resolved() : reject(error)))
  })

/**
 * Unpacks below `folder`; the archive's top entry becomes `name`. Regular files and folders alone are made while the archive is read;
 * links come last, so that none is written through, and only those that stay inside.
 */
export async function unpackTree(tar: NodeJS.ReadableStream | Pack, folder: string, name: string): Promise<number> {
  const root = join(folder, name)
  const links: { path: string; to: string }[] = []
  let count = 0
  const parser = extract()
  const reading = pipeline(tar, parser)
  reading.catch(() => undefined)
  for await (const part of parser) {
    const { header } = part
    const path = placeOf(root, header.name)
    await refuseLinks(folder, path)
    if (header.type === 'directory') await mkdir(path, { recursive: true })
    else if (header.type === 'file') {
      await mkdir(dirname(path), { recursive: true })
      await rm(path, { force: true })
      await pipeline(part, createWriteStream(path, { flags: 'wx', mode: (header.mode ?? 0o644) & 0o777 }))
      count++
    } else if ((header.type === 'symlink' || header.type === 'link') && typeof header.linkname === 'string') {
      links.push({ path, to: header.type === 'link' ? placeOf(root, header.linkname) : resolve(dirname(path), header.linkname) })
    }
    part.resume()
  }
  await reading
  for (const { path, to } of links) if (await makeLink(root, path, to)) count++
  return count
}

/** `TOP/a/b` → `root/a/b`; a name that leads out of it is refused. */
function placeOf(root: string, name: string): string {
  const [, ...rest] = normalize(name)
    .split(sep)
    .filter((it) => it !== '' && it !== '.')
  const path = join(root, ...rest)
  if (normalize(name).startsWith('..') || rest.includes('..') || (path !== root && !path.startsWith(root + sep))) {
    throw new AgentctlError('AG4005', `the archive from the container has an entry outside of itself: ${JSON.stringify(name)}`, {
      hint: 'Nothing is written there. Look into the container before you trust its files.',
    })
  }
  return path
}

/** A link on the host below the folder (made before, by whom ever) is not followed. */
async function refuseLinks(folder: string, path: string): Promise<void> {
  for (let at = dirname(path); at.length > folder.length; at = dirname(at)) {
    const info = await lstat(at).catch(() => null)
    if (info?.isSymbolicLink() === true)
      throw new AgentctlError('AG4005', `${at} is a link; files of the container are not written through it`, {
        hint: 'Copy into another folder.',
      })
  }
}

async function makeLink(root: string, path: string, to: string): Promise<boolean> {
  if (to !== root && !to.startsWith(root + sep)) return false
  if ((await stat(to).catch(() => null)) === null) return false
  await rm(path, { force: true })
  await symlink(relative(dirname(path), to), path)
  return true
}
