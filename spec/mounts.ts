/** What a workload is given beside its image: mounts and published ports. */
import { posix } from 'node:path'
import { type Context, pathOf } from './context.ts'
import { found } from './describe.ts'
import { DEFAULTS, type Mount, type PortMapping } from './model.ts'
import type { Span } from './source.ts'
import { child, itemsOf, type MapNode, type Node, textOf } from './tree.ts'
import * as values from './values.ts'
import { absent, flag, integer, readOr } from './workload.ts'

export const tidy = (path: string): string => {
  const normal = posix.normalize(path)
  return normal.length > 1 ? normal.replace(/\/$/, '') : normal
}

/** `volumes` and `tmpfs`, in the order of the file. */
export function mountsOf(node: MapNode, at: string, context: Context): readonly Mount[] {
  const mounts: Mount[] = []
  const add = (mount: Mount | null, span: Span): void => {
    if (mount === null) return
    context.mark(`${at}.mounts.${mounts.length}`, span)
    mounts.push(mount)
  }
  for (const item of itemsOf(child(node, 'volumes')))
    add(item.kind === 'map' ? longMount(item, context) : shortMount(item, context), pointAt(item))
  const tmpfs = child(node, 'tmpfs')
  for (const item of tmpfs?.kind === 'list' ? tmpfs.items : absent(tmpfs) ? [] : [tmpfs]) {
    const read = readOr(values.tmpfs(textOf(item)), item, context, null)
    add(read === null ? null : memory(read.target, read.size), item.span)
  }
  return mounts
}

export const pointAt = (item: Node): Span =>
  item.kind === 'map' ? (child(item, 'source') ?? child(item, 'target') ?? item).span : item.span

function memory(target: string, size: number | null): Mount {
  const path = tidy(target)
  return { type: 'tmpfs', target: path, size: size ?? (path === '/workspace' ? DEFAULTS.tmpfs.workspace : DEFAULTS.tmpfs.tmp) }
}

function shortMount(item: Node, context: Context): Mount | null {
  const read = readOr(values.shortMount(textOf(item)), item, context, null)
  if (read === null) return null
  const target = tidy(read.target)
  if (!/^[./~]/.test(read.source)) return { type: 'volume', source: read.source, target, read_only: read.read_only }
  return { type: 'bind', source: pathOf(read.source, context, item.span), target, read_only: read.read_only }
}

function longMount(item: MapNode, context: Context): Mount | null {
  const type = textOf(child(item, 'type'))
  const source = child(item, 'source')
  const target = child(item, 'target')
  // Without its target the form has been complained about already.
  if (target === undefined || textOf(target) === '') return null
  if (type === 'tmpfs') {
    const size = child(child(item, 'tmpfs'), 'size')
    return memory(textOf(target), size === undefined ? null : readOr(values.size(textOf(size)), size, context, null))
  }
  if (source === undefined || textOf(source) === '') {
    if (type !== '')
      context.report('AG1007', item.span, `a mount of type ${type} needs the key "source"`, { help: 'for example source: ./data' })
    return null
  }
  const read_only = flag(child(item, 'read_only'), false, context)
  if (type === 'bind') return { type, source: pathOf(textOf(source), context, source.span), target: tidy(textOf(target)), read_only }
  return type === 'volume' ? { type, source: textOf(source), target: tidy(textOf(target)), read_only } : null
}

export function portsOf(node: MapNode, at: string, context: Context): readonly PortMapping[] {
  const ports: PortMapping[] = []
  for (const item of itemsOf(child(node, 'ports'))) {
    const read = item.kind === 'map' ? longPort(item, context) : readOr(values.port(textOf(item)), item, context, null)
    if (read === null) continue
    context.mark(
      `${at}.ports.${ports.length}`,
      item.kind === 'map' ? (child(item, 'published') ?? child(item, 'target') ?? item).span : item.span,
    )
    ports.push(read)
  }
  return ports
}

function longPort(item: MapNode, context: Context): PortMapping | null {
  const target = child(item, 'target')
  if (target === undefined) return null
  const address = child(item, 'host_ip')
  const ip = textOf(address).replace(/^\[|\]$/g, '') || '127.0.0.1'
  if (address !== undefined && !values.isAddress(ip))
    context.report('AG1005', address.span, `expected an IP address, got ${found(address)}`)
  return {
    host_ip: ip,
    host_port: integer(child(item, 'published'), 0, 0, 65535, context),
    container_port: integer(target, 0, 1, 65535, context),
    protocol: textOf(child(item, 'protocol')) === 'udp' ? 'udp' : 'tcp',
  }
}
