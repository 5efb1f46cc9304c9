/** Declared against effective, of one container: what the engine says, then what the kernel says. */
import { AgentctlError } from '../errors.ts'
import { fields } from '../fields.ts'
import { LABEL, PROBE } from '../names.ts'
import type { ContainerRuntime, ContainerSpec } from '../ports.ts'
import type { ProjectRecord } from '../record.ts'
import { SECCOMP } from '../seccomp.ts'
import type { Effective } from './controls.ts'
import { parseProbe, probeCommand, type Seen } from './probe.ts'

export type ProvingRuntime = Pick<ContainerRuntime, 'inspect' | 'image' | 'exec' | 'join'>

const EXEC_MS = 15_000

/** Variables of images do not change under a reference that we made or that a container runs. */
export class Images {
  readonly #known = new Map<string, Promise<readonly string[] | null>>()
  readonly #runtime: Pick<ContainerRuntime, 'image'>

  constructor(runtime: Pick<ContainerRuntime, 'image'>) {
    this.#runtime = runtime
  }

  environment(id: string, signal: AbortSignal): Promise<readonly string[] | null> {
    const known = this.#known.get(id)
    if (known !== undefined) return known
    const asked = this.#runtime.image(id, signal).then(
      (image) => image?.environment ?? null,
      () => {
        this.#known.delete(id)
        return null
      },
    )
    this.#known.set(id, asked)
    return asked
  }
}

export async function effectiveOf(runtime: ProvingRuntime, images: Images, container: string, signal: AbortSignal): Promise<Effective> {
  const inspect = fields(await runtime.inspect(container, signal))
  return { inspect, imageEnvironment: await images.environment(String(inspect['Image'] ?? ''), signal) }
}

/** Folders that the image declares as volumes: the engine makes one for each. */
export const imageVolumes = ({ inspect }: Effective): readonly string[] => Object.keys(fields(fields(inspect['Config'])['Volumes']))

/**
 * Our own image has the reader in it: an exec, a fifth of the cost of a container. Any other image is joined from outside, since what
 * is in it is not ours. Throws when nothing can be read: then nothing is proved.
 */
export async function probe(
  runtime: ProvingRuntime,
  spec: ContainerSpec,
  images: ProjectRecord['images'],
  signal: AbortSignal,
): Promise<Seen> {
  const inside = spec.image === images.agent || spec.image === images.engine
  const user = spec.user ?? '65534:65534'
  const text = inside
    ? (await runtime.exec(spec.name, probeCommand(true), { timeout_ms: EXEC_MS }, signal)).stdout.toString('utf8')
    : (
        await runtime.join(
          spec.name,
          { image: images.engine, command: probeCommand(false), user, seccomp: SECCOMP, labels: probeLabels(spec) },
          signal,
        )
      ).toString('utf8')
  const seen = parseProbe(text)
  if (seen !== null) return seen
  throw new AgentctlError('AG3006', `the posture of "${spec.name}" cannot be read in its namespaces`, {
    hint: 'See `agentctl audit` and the controller’s log.',
  })
}

const probeLabels = (spec: ContainerSpec): ContainerSpec['labels'] => ({
  [LABEL.project]: spec.labels[LABEL.project] ?? '',
  [LABEL.kind]: PROBE,
  [LABEL.replica]: '0',
})
