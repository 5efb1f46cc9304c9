/** Values of the secrets that are in use, from where the file says: a file, a variable, or a program that prints it. Every problem at once. */
import { readFileSync } from 'node:fs'
import type { Diagnostic, Place } from '../../spec/diagnostic.ts'
import { DEFAULTS, type Project, type Secret, type Workload } from '../../spec/model.ts'
import { placeOf } from '../places.ts'
import { reason } from '../preflight.ts'
import { formsOf, isWord } from '../redact.ts'
import { runCommand } from './command.ts'

export interface SourceOptions {
  readonly environment: { readonly [name: string]: string | undefined }
  readonly places: ReadonlyMap<string, Place>
  readonly signal: AbortSignal
  /** Which program gave which secret: a name on PATH may be another one than meant. */
  readonly note: (message: string) => void
}

export interface Values {
  readonly diagnostics: readonly Diagnostic[]
  /** base64, by secret. */
  readonly values: { readonly [name: string]: string }
}

type Problem = { readonly message: string; readonly help: string }
type Read = Buffer | Problem

export async function readSources(project: Project, options: SourceOptions): Promise<Values> {
  const used = new Set(workloads(project).flatMap(([, workload]) => workload.secrets.map((use) => use.source)))
  for (const name of [project.broker.password, project.broker.ca]) if (name !== null) used.add(name)
  const secrets = Object.values(project.secrets).filter((secret) => used.has(secret.name))
  // At once: each may ask a service far away.
  const read = await Promise.all(secrets.map(async (secret) => [secret.name, await readSecret(secret, options)] as const))
  const diagnostics: Diagnostic[] = []
  const values: Record<string, Buffer> = {}
  const problem = (code: Diagnostic['code'], key: string, { message, help }: Problem): void => {
    diagnostics.push({ code, severity: 'error', message, place: placeOf(options.places, key), help, notes: [] })
  }
  for (const [name, found] of read) {
    if (Buffer.isBuffer(found)) values[name] = found
    else problem('AG3003', `secrets.${name}`, found)
  }
  for (const { key, ...found } of inPlainSight(project, values)) problem('AG3010', key, found)
  return { diagnostics, values: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value.toString('base64')])) }
}

async function readSecret(secret: Secret, options: SourceOptions): Promise<Read> {
  const { name } = secret
  if (secret.kind === 'command') return await runCommand(secret, options)
  if (secret.kind === 'environment') {
    const value = options.environment[secret.variable]
    return value === undefined || value === ''
      ? {
          message: `secret "${name}" reads the environment variable ${secret.variable}, which is not set`,
          help: `Set ${secret.variable}, or use \`file:\` or \`command:\`.`,
        }
      : Buffer.from(value, 'utf8')
  }
  try {
    const content = readFileSync(secret.path)
    return content.length <= DEFAULTS.secret.max_size
      ? content
      : {
          message: `the file of secret "${name}" has ${content.length} bytes, at most ${DEFAULTS.secret.max_size} are allowed`,
          help: 'Pass large files by a volume.',
        }
  } catch (error) {
    return {
      message: `the file of secret "${name}" cannot be read: ${reason(error)}`,
      help: `Create ${secret.path}, or make it readable for you.`,
    }
  }
}

const workloads = (project: Project): readonly (readonly ['agents' | 'services', Workload])[] => [
  ...Object.values(project.agents).map((agent) => ['agents', agent] as const),
  ...Object.values(project.services).map((service) => ['services', service] as const),
]

/** A short value stands in a configuration for other reasons, too. */
const LEAST = 8
const isTelling = (value: Buffer): boolean => value.toString('utf8').trim().length >= LEAST && !isWord(value)

/** Values that the container's configuration would repeat, where `inspect` shows them. */
function* inPlainSight(project: Project, values: { readonly [name: string]: Buffer }): Generator<Problem & { readonly key: string }> {
  const forms = Object.entries(values)
    .filter(([, value]) => isTelling(value))
    .flatMap(([name, value]) => formsOf(value).map((form) => [form, name] as const))
  const holds = (texts: readonly string[]): string | null => forms.find(([form]) => texts.some((text) => text.includes(form)))?.[1] ?? null
  for (const [section, workload] of workloads(project)) {
    const [path, what] = [`${section}.${workload.name}`, `${section === 'agents' ? 'agent' : 'service'} "${workload.name}"`]
    const places: readonly (readonly [key: string, where: string, texts: readonly string[]])[] = [
      ...Object.entries(workload.environment).map(([name, value]) => [`environment.${name}`, `the variable ${name}`, [value]] as const),
      ...Object.entries(workload.labels).map(([name, value]) => [`labels.${name}`, `the label "${name}"`, [value]] as const),
      ['command', 'the command', workload.command ?? []],
      ['entrypoint', 'the entrypoint', workload.entrypoint ?? []],
      ['healthcheck', 'the healthcheck', workload.healthcheck?.test ?? []],
    ]
    for (const [key, where, texts] of places) {
      const name = holds(texts)
      if (name === null) continue
      const given = workload.secrets.find((use) => use.source === name)
      const file =
        given === undefined ? `/run/secrets/${name}` : given.target.startsWith('/') ? given.target : `/run/secrets/${given.target}`
      yield {
        key: `${path}.${key}`,
        message: `${where} of ${what} holds the value of secret "${name}", where everybody who may use the engine reads it`,
        help: `Take it out and read ${file} in the container instead${given === undefined ? `; give it with \`secrets: [${name}]\`` : ''}.`,
      }
    }
  }
}
