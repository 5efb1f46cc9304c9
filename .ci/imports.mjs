// The table .ci/imports.json as data and questions; the lint rules and their test are both made from it.
import { readFileSync } from 'node:fs'

const table = JSON.parse(readFileSync(new URL('./imports.json', import.meta.url), 'utf8'))

/** How deep folders go below a row's path; rules are written for each depth, because imports are relative. */
const DEPTHS = 3

export const modules = Object.entries(table.modules).map(([name, row]) => ({
  name,
  isFile: /\.\w+$/.test(row.path),
  isShallow: row.path.endsWith('/*'),
  folder: row.path.replace(/\/\*$/, ''),
  types: [],
  speaks: false,
  ...row,
}))

/** Packages that somebody owns; those that a row does not name are closed to it. */
export const packages = [...new Set(modules.flatMap((module) => module.packages))].sort((a, b) => (a < b ? -1 : 1))

/** Families of which only the named members may be used. */
export const families = ['@opentelemetry']

export const moduleOf = (file) => modules.findLast((module) => contains(module, file))

function contains(module, file) {
  if (module.isFile) return file === module.path
  if (!file.startsWith(`${module.folder}/`)) return false
  return !module.isShallow || !file.slice(module.folder.length + 1).includes('/')
}

/** The row that a file-row is cut out of: it may import that row, and be imported by whoever may import it. */
const isPartOf = (part, whole) => part !== whole && part.isFile && contains({ ...whole, isShallow: false }, part.path)

/** Folders without rules of their own, that nothing may import. */
export const free = table.free

/** What `from` may not import: {target, exceptions: files of it that are allowed}. */
export function closedTo(from) {
  const outside = free.map((folder) => ({ name: folder, folder, isFile: false, isShallow: false }))
  return [...modules, ...outside]
    .filter((target) => target !== from && !target.isFile && !from.imports.includes(target.name) && !isPartOf(from, target))
    .map((target) => ({ target, exceptions: from.imports.filter((file) => file.startsWith(`${target.folder}/`)) }))
}

/** Globs of a row's files, one for each depth, with the folders in between. */
export function places(module) {
  if (module.isFile) return [{ glob: module.path, up: module.path.split('/').length - 1, base: module.path.split('/').slice(0, -1) }]
  const base = module.folder.split('/')
  const depths = module.isShallow ? [0] : Array.from({ length: DEPTHS + 1 }, (_none, depth) => depth)
  return depths.map((depth) => ({ glob: `${module.folder}/${'*/'.repeat(depth)}*.ts`, up: base.length + depth, base }))
}

/** Every way to write the path from a place to a folder: the shortest, and those that go up further than needed. */
export function waysTo(place, folder) {
  const goal = folder.split('/')
  let common = 0
  while (common < goal.length && common < place.base.length && goal[common] === place.base[common]) common += 1
  return Array.from({ length: common + 1 }, (_none, shared) => {
    const ups = place.up - shared
    return [ups === 0 ? './' : '../'.repeat(ups), ...goal.slice(shared).map((part) => `${part}/`)].join('')
  })
}
