/** Chooses /24 subnets. Explicit, because the engine's default pools run out at about 30 networks. Pure. */
import { AgentctlError } from './errors.ts'

interface Range {
  readonly base: number
  readonly bits: number
}

/** The range that subnets come from unless AGENTCTL_SUBNETS says otherwise. */
export const DEFAULT_RANGE = '10.192.0.0/12'

export function parseCidr(text: string): Range | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text.trim())
  if (match === null) return null
  const parts = match.slice(1, 5).map(Number)
  const bits = Number(match[5])
  if (parts.some((part) => part > 255) || bits > 32) return null
  const address = parts.reduce((sum, part) => sum * 256 + part, 0)
  return { base: address - (address % 2 ** (32 - bits)), bits }
}

const size = (range: Range): number => 2 ** (32 - range.bits)
const overlap = (a: Range, b: Range): boolean => a.base < b.base + size(b) && b.base < a.base + size(a)
const dotted = (address: number): string => [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')

/** "10.192.3.0/24" + 9 → "10.192.3.9". */
export function hostAddress(subnet: string, host: number): string {
  const range = parseCidr(subnet)
  if (range === null) throw new Error(`not a subnet: ${subnet}`)
  return dotted(range.base + host)
}

/**
 * Keeps what is chosen already and gives every other network the first free /24.
 * `taken`: subnets of the engine's other networks and of the host's routes.
 */
export function allocateSubnets(options: {
  readonly networks: readonly string[]
  readonly chosen: { readonly [network: string]: string }
  readonly taken: readonly string[]
  readonly range?: string | undefined
}): { readonly [network: string]: string } {
  const text = options.range ?? DEFAULT_RANGE
  const range = parseCidr(text)
  if (range === null || range.bits > 24) {
    throw new AgentctlError('AG4007', `AGENTCTL_SUBNETS is "${text}", expected an IPv4 range of /24 or larger such as "${DEFAULT_RANGE}"`, {
      hint: 'Correct or unset AGENTCTL_SUBNETS.',
      exit: 2,
    })
  }
  const used = [...options.taken, ...Object.values(options.chosen)]
    .map(parseCidr)
    .filter((entry) => entry !== null && entry.bits > 0) as Range[]
  const result: Record<string, string> = {}
  let next = range.base
  for (const network of options.networks) {
    const kept = options.chosen[network]
    if (kept !== undefined) {
      result[network] = kept
      continue
    }
    for (;;) {
      if (next >= range.base + size(range)) {
        throw new AgentctlError('AG4007', `no free /24 is left in ${text} for network "${network}"`, {
          hint: 'Remove unused projects, or set AGENTCTL_SUBNETS to another private range.',
        })
      }
      const candidate: Range = { base: next, bits: 24 }
      next += 256
      if (!used.some((range) => overlap(range, candidate))) {
        result[network] = `${dotted(candidate.base)}/24`
        break
      }
    }
  }
  return result
}

/** Destinations of /proc/net/route (little-endian hex), without the default route. */
export function hostRoutes(procNetRoute: string): readonly string[] {
  const bytes = (hex: string): number[] => (hex.match(/../g) ?? []).map((pair) => Number.parseInt(pair, 16)).reverse()
  return procNetRoute
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, destination, , , , , , mask] = line.split('\t')
      if (destination === undefined || mask === undefined || destination.length !== 8) return []
      const bits = bytes(mask).reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0)
      return bits === 0 ? [] : [`${bytes(destination).join('.')}/${bits}`]
    })
}
