/** Paths of the host that no agent may have, by bind or through a module's folder. The engine's side asks again with the real path (symlinks). */
import { posix } from 'node:path'

/** Neither they, nor what is in them, nor what contains them. */
const CLOSED = [
  '/etc',
  '/proc',
  '/sys',
  '/dev',
  '/boot',
  '/run',
  '/var/run',
  '/var/lib/docker',
  '/var/lib/containerd',
  '/var/lib/containers',
] as const
/** A folder below is fine: the checkout of a user who is root. */
const ROOT_HOME = '/root'
/** Those of CIS 5.5 that may hold a project: they themselves, and what contains them, are not for an agent. */
const SYSTEM = ['/bin', '/lib', '/lib64', '/sbin', '/usr', '/var', '/var/log'] as const
/** Where people keep keys. */
const CREDENTIALS = /^\.(ssh|gnupg|aws|azure|kube|docker|netrc|password-store|git-credentials)$/
const SOCKET = /^(docker|podman|containerd|crio)\.sock$/

const contains = (outer: string, inner: string): boolean => outer === inner || inner.startsWith(outer === '/' ? '/' : `${outer}/`)

/** Why this host path must not be given to an agent; null: it may. */
export function forbiddenHostPath(path: string): string | null {
  const at = posix.normalize(path).replace(/(?<=.)\/$/, '')
  if (at === '/') return 'it is the whole file system of the host'
  if (SOCKET.test(posix.basename(at))) return 'it is the socket of a container engine: whoever has it owns the host'
  for (const closed of CLOSED) {
    if (at === closed) return `${closed} belongs to the host's system`
    if (contains(closed, at)) return `it lies in ${closed}, which belongs to the host's system`
    if (contains(at, closed)) return `it contains ${closed}, which belongs to the host's system`
  }
  const key = at.split('/').find((part) => CREDENTIALS.test(part))
  if (key !== undefined) return `"${key}" holds credentials of the host's user`
  if (SYSTEM.some((path) => path === at)) return `${at} belongs to the host's system`
  return contains(at, ROOT_HOME) ? `${ROOT_HOME} is the home of the host's administrator` : null
}
