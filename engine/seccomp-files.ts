/** `security_opt: [seccomp=PATH]`: read where the file is, checked before anything is made. */
import { readFileSync } from 'node:fs'
import type { Diagnostic, Place } from '../spec/diagnostic.ts'
import type { Project, Workload } from '../spec/model.ts'
import type { SeccompProfiles } from './harden.ts'
import { placeOf } from './places.ts'

const MAX_BYTES = 262_144
/** Actions that refuse. Under any other default a call that the profile does not name is allowed. */
const REFUSES: ReadonlySet<unknown> = new Set(
  ['ERRNO', 'KILL', 'KILL_THREAD', 'KILL_PROCESS', 'TRAP'].map((action) => `SCMP_ACT_${action}`),
)

export function seccompProfiles(
  project: Project,
  places: ReadonlyMap<string, Place>,
): { readonly profiles: SeccompProfiles; readonly diagnostics: readonly Diagnostic[] } {
  const profiles: Record<string, string> = {}
  const diagnostics: Diagnostic[] = []
  const read = (section: 'agents' | 'services', { name, hardening }: Workload): void => {
    const choice = hardening?.seccomp
    if (choice === undefined || typeof choice === 'string') return
    const key = `${section}.${name}.security_opt.seccomp`
    const say = (why: string, help: string): void =>
      void diagnostics.push({
        code: 'AG3007',
        severity: 'error',
        message: `the seccomp profile ${choice.path} ${why}`,
        place: placeOf(places, key),
        help,
        notes: [],
      })
    try {
      const text = readFileSync(choice.path, 'utf8')
      const why = unfit(text)
      if (why === null) profiles[choice.path] = JSON.stringify(JSON.parse(text))
      else say(why, 'Name what is allowed, and refuse the rest: "defaultAction": "SCMP_ACT_ERRNO".')
    } catch (error) {
      const code = (error as { code?: string }).code
      say(
        `cannot be read: ${code === 'ENOENT' ? 'there is no such file' : (code ?? String(error))}`,
        'Correct the path; it is relative to the project file.',
      )
    }
  }
  for (const agent of Object.values(project.agents)) read('agents', agent)
  for (const service of Object.values(project.services)) read('services', service)
  return { profiles, diagnostics }
}

/** Why such a profile is none; null: it is one. What it allows is the user's business. */
export function unfit(text: string): string | null {
  if (text.length > MAX_BYTES) return `is larger than ${MAX_BYTES / 1024} KiB`
  let profile: unknown
  try {
    profile = JSON.parse(text)
  } catch {
    return 'is not JSON'
  }
  const { defaultAction, syscalls } = (typeof profile === 'object' && profile !== null ? profile : {}) as { [key: string]: unknown }
  if (!Array.isArray(syscalls)) return 'has no list "syscalls"'
  if (!REFUSES.has(defaultAction))
    return `allows what it does not name (defaultAction ${JSON.stringify(defaultAction ?? null)}): that is unconfined`
  return null
}
