/** What the files of the check phase share. */
import { cycles, type Edges } from './cycles.ts'
import type { Project } from './model.ts'
import type { Report } from './problems.ts'
import type { Span } from './source.ts'
import { didYouMean, known } from './suggest.ts'

export type Section = 'agents' | 'services' | 'secrets' | 'volumes' | 'egress' | 'pipelines'

export interface Checking {
  readonly project: Project
  readonly report: Report
  /** The form has no mistake. */
  readonly clean: boolean
  /** Where the value with that dotted path stands; the nearest place above it when it is not written. */
  readonly at: (path: string) => Span
  /** Written in the file, whether or not it could be read. */
  readonly written: (path: string) => boolean
  /** Something of that name is declared; true for all names when the section itself could not be read. */
  readonly declared: (section: Section, name: string) => boolean
}

const SINGULAR: { readonly [section in Section]: string } = {
  agents: 'agent',
  services: 'service',
  secrets: 'secret',
  volumes: 'volume',
  egress: 'egress policy',
  pipelines: 'pipeline',
}

/** Reports a name that is not declared; true when it is. */
export function requireDeclared(checking: Checking, path: string, section: Section, name: string, what: string): boolean {
  if (name === '' || checking.declared(section, name)) return true
  const names = Object.keys(checking.project[section] ?? {})
  checking.report('AG2001', checking.at(path), `${what} names the ${SINGULAR[section]} "${name}", which is not declared`, {
    help: didYouMean(name, names) ?? known(section === 'egress' ? 'egress policies' : section, names),
  })
  return false
}

/** Reports every value that stood before. */
export function unique(
  values: readonly string[],
  place: (index: number) => Span,
  message: (value: string) => string,
  report: Report,
): void {
  const first = new Map<string, number>()
  for (const [index, value] of values.entries()) {
    const before = first.get(value)
    if (before === undefined) first.set(value, index)
    else
      report('AG2003', place(index), message(value), {
        help: 'change or remove one of them',
        notes: [{ message: 'the other is here', span: place(before) }],
      })
  }
}

/** One diagnostic per cycle: the path, and a place for every edge of it. */
export function checkCycles(edges: Edges, verb: string, place: (from: string, to: string) => Span, report: Report): void {
  for (const cycle of cycles(edges)) {
    const pairs = cycle.slice(1).map((to, index) => [cycle[index] ?? '', to] as const)
    const [first, ...others] = pairs
    if (first === undefined) continue
    report('AG2002', place(...first), `cycle: ${cycle.join(' → ')}`, {
      help: 'remove one of these edges',
      notes: others.map(([from, to]) => ({ message: `"${from}" ${verb} "${to}" here`, span: place(from, to) })),
    })
  }
}
