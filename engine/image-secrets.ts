/** Images that carry a secret: in ENV, which every container of them has, or as a build argument, which their history tells. */
import type { Diagnostic, Place } from '../spec/diagnostic.ts'
import { knownKey, looksSecret } from '../spec/known-keys.ts'
import type { Project, Workload } from '../spec/model.ts'
import type { Image } from './ports.ts'
import { placeOf } from './places.ts'

export interface ImageFacts extends Image {
  /** What made each layer, as the engine tells it. */
  readonly history: readonly string[]
}

/** Every problem of every workload that runs one of these images. No value is shown. */
export function imageSecrets(
  project: Project,
  images: ReadonlyMap<string, ImageFacts>,
  places: ReadonlyMap<string, Place>,
): readonly Diagnostic[] {
  const diagnostics: Diagnostic[] = []
  const look = (section: 'agents' | 'services', workload: Workload): void => {
    const facts = images.get(workload.image ?? '')
    if (facts === undefined) return
    const what = `${section === 'agents' ? 'agent' : 'service'} "${workload.name}"`
    const problem = (message: string, help: string): void => {
      const place = placeOf(places, `${section}.${workload.name}.image`)
      diagnostics.push({
        code: 'AG3010',
        severity: 'error',
        message: `the image "${workload.image}" of ${what} ${message}`,
        place,
        help,
        notes: [],
      })
    }
    for (const name of variables(facts.environment, new Set(Object.keys(workload.environment))))
      problem(
        `has a value for ${name} in its ENV: whoever has the image has it`,
        `Build it without that ENV, exchange the key, and give it by \`secrets\`. If it is none, rename it or set it in \`environment\` of ${what}.`,
      )
    for (const name of buildArguments(facts.history))
      problem(
        `was built with the argument ${name}, which its history tells`,
        'Build it with `RUN --mount=type=secret`, or in a stage that is left behind, and exchange the key. If it is none, rename the argument.',
      )
  }
  for (const agent of Object.values(project.agents)) look('agents', agent)
  for (const service of Object.values(project.services)) look('services', service)
  return diagnostics
}

const pair = (text: string): readonly [name: string, value: string] => {
  const at = text.indexOf('=')
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}
const isSecret = (name: string, value: string): boolean => looksSecret(name, value) || knownKey(value) !== null

/** What the file sets itself is not the image's. */
const variables = (environment: readonly string[], own: ReadonlySet<string>): readonly string[] =>
  environment.map(pair).flatMap(([name, value]) => (!own.has(name) && isSecret(name, value) ? [name] : []))

/** `|2 A=1 TOKEN=x /bin/sh -c …` of a RUN that had arguments, and `ARG TOKEN=x` with a default. */
function buildArguments(history: readonly string[]): readonly string[] {
  const found = new Set<string>()
  for (const line of history) {
    const given = /(?:^|\s)\|\d+ (.*?)(?: \/bin\/\w+ -c |$)/s.exec(line)?.[1] ?? ''
    const declared = /(?:^|\s)ARG\s+(.*?)(?: # buildkit)?$/s.exec(line)?.[1] ?? ''
    for (const word of `${given} ${declared}`.split(/\s+/)) {
      const [name, value] = pair(word)
      if (isSecret(name, value.replaceAll(/^["']|["']$/g, ''))) found.add(name)
    }
  }
  return [...found]
}
