/** Tar to and from the host's files. What comes out of an agent's container is hostile: it may not leave the folder that it is put into. */
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, mkdir, readdir, readlink, realpath, rm, symlink } from 'node:fs/promises'
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
 * Unpacks below `folder`, which exists; the archive's top entry becomes `name`. Regular files and folders are made while the archive is
 * read; links come last, and only those whose target is there and stays inside. Nothing is made or replaced through a link, be it of the
 * host or of this archive.
 */
export async function unpackTree(tar: NodeJS.ReadableStream | Pack, folder: string, name: string): Promise<number> {
  const top = await realpath(folder)
  const root = join(top, name)
  const links: { path: string; to: string }[] = []
  let count = 0
  const parser = extract()
  const reading = pipeline(tar, parser)
  reading.catch(() => undefined)
  for await (const part of parser) {
    const { header } = part
    const path = placeOf(root, header.name)
    if (header.type === 'directory') await makeFolder(top, path)
    else if (header.type === 'file') {
      await makeFolder(top, dirname(path))
      await rm(path, { force: true })
      await pipeline(part, createWriteStream(path, { flags: 'wx', mode: (header.mode ?? 0o644) & 0o777 }))
      count++
    } else if ((header.type === 'symlink' || header.type === 'link') && typeof header.linkname === 'string') {
      links.push({ path, to: header.type === 'link' ? placeOf(root, header.linkname) : resolve(dirname(path), header.linkname) })
    }
    part.resume()
  }
  await reading
  for (const { path, to } of links) if (await makeLink(top, root, path, to)) count++
  return count
}

/** `TOP/a/b` → `root/a/b`; a name that leads out of it is refused. */
function placeOf(root: string, name: string): string {
  const [, ...rest] = normalize(name)
    .split(sep)
    .filter((it) => it !== '' && it !== '.')
  const path = join(root, ...rest)
  if (normalize(name).startsWith('..') || rest.includes('..') || !isWithin(root, path)) {
    throw new AgentctlError('AG4005', `the archive from the container has an entry outside of itself: ${JSON.stringify(name)}`, {
      hint: 'Nothing is written there. Look into the container before you trust its files.',
    })
  }
  return path
}

/** Makes `path`, below the real folder `top`. Whatever of it is there already has to be a folder: a link (made by whom ever) is not followed. */
async function makeFolder(top: string, path: string): Promise<void> {
  let at = top
  for (const step of relative(top, path).split(sep)) {
    at = join(at, step)
    const info = await lstat(at).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null
      throw error
    })
    if (info === null) await mkdir(at)
    else if (!info.isDirectory())
      throw new AgentctlError('AG4005', `${at} is ${info.isSymbolicLink() ? 'a link' : 'no folder'}; nothing is written through it`, {
        hint: 'Copy into another folder.',
      })
  }
}

/** Of a path whose parents are real folders, so that its relative target means to the system what it means here. */
async function makeLink(top: string, root: string, path: string, to: string): Promise<boolean> {
  await makeFolder(top, dirname(path))
  const target = await realpath(to).catch(() => null)
  if (target === null || to === path || !isWithin(root, to) || !isWithin(root, target)) return false
  await rm(path, { force: true })
  await symlink(relative(dirname(path), to) || '.', path)
  return true
}

const isWithin = (root: string, path: string): boolean => path === root || path.startsWith(root + sep)
