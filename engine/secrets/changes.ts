/** What differs between the secrets that containers have and those that they are to have, as the plan says it. Pure. */
import { posix } from 'node:path'
import type { DesiredContainer } from '../desired.ts'
import { type Delivered, type SecretChange, secretChange, type SecretStore } from './store.ts'

export interface Changes {
  /** By container: its files are exchanged while it runs. */
  readonly exchanged: { readonly [container: string]: string }
  /** By container: one of its files is a mount of its own, which shows the old value until it is made anew. */
  readonly recreated: { readonly [container: string]: string }
}

export function changesOf(store: SecretStore, delivered: Delivered, containers: readonly DesiredContainer[]): Changes {
  const exchanged: Record<string, string> = {}
  const recreated: Record<string, string> = {}
  for (const container of containers) {
    const change = secretChange(store, delivered, container)
    if (change === null) continue
    if (change.fixed) recreated[container.spec.name] = `${causeOf(change)}, and a file outside /run/secrets cannot be exchanged`
    else exchanged[container.spec.name] = `${causeOf(change)}; nothing is restarted`
  }
  return { exchanged, recreated }
}

function causeOf({ changed, gone }: SecretChange): string {
  const list = (what: string, names: readonly string[], done: string): readonly string[] =>
    names.length === 0 ? [] : [`${what}${names.length === 1 ? '' : 's'} ${names.join(', ')} ${done}`]
  const files = gone.map((path) => posix.basename(path)).toSorted()
  return [
    ...list('secret', changed, 'changed'),
    ...list('file', files, files.length === 1 ? 'is given no more' : 'are given no more'),
  ].join(', ')
}
