/**
 * The record → who is who, and what each may reach. Identity is the address that a connection comes from together with the one that
 * it arrived at: every replica has a static address on the one network of its role, and without NET_RAW it has no other.
 */
import { type Address, type Cidr, contains, parseCidr } from '../../spec/addresses.ts'
import type { EgressPolicy, EgressRule } from '../../spec/model.ts'
import { canonicalJson } from '../canonical.ts'
import { HOST, roleNetwork } from '../names.ts'
import { type ProjectRecord, RECORD_VERSION } from '../record.ts'
import { hostAddress } from '../subnets.ts'

export interface Client {
  readonly agent: string
  /** 0: a one-off container of it. */
  readonly replica: number
}

export interface Segments {
  /** null: nobody that we know, or not on the network that it should be on. */
  identify(local: string | undefined, remote: string | undefined): Client | null
  policiesOf(agent: string): readonly EgressPolicy[]
  isOwn(address: Address): boolean
  /** The same for records that say the same about egress: only a change closes anything. */
  readonly mark: string
}

/** Before there is a record: nobody may do anything. */
export const NOBODY: Segments = { identify: () => null, policiesOf: () => [], isOwn: () => true, mark: '' }

/** One-offs have 5 to 8, replicas what follows; above are gateways. */
const FIRST_ONE_OFF = 5

/** Throws what is wrong with it: the caller keeps the segments that it has. */
export function segmentsOf(text: string): Segments {
  const record = JSON.parse(text) as Partial<ProjectRecord>
  if (typeof record.version !== 'number' || record.version > RECORD_VERSION)
    throw new Error(`the project record has version ${String(record.version)}; this egress knows ${RECORD_VERSION}`)
  const { project, subnets = {} } = record
  if (project === undefined) throw new Error('the record has no project')
  const policies = new Map<string, readonly EgressPolicy[]>()
  const agents = new Map<string, string>()
  for (const { name, egress = [] } of Object.values(project.agents)) {
    if (egress.length === 0) continue
    policies.set(
      name,
      egress.map((each) => checked(project.egress?.[each], each)),
    )
    agents.set(prefixOf(hostAddress(subnets[roleNetwork(name)] ?? '', HOST.egress)), name)
  }
  const own = Object.values(subnets).map((subnet): Cidr => {
    const cidr = parseCidr(subnet)
    if (cidr === null) throw new Error(`not a subnet: ${subnet}`)
    return cidr
  })
  return {
    identify: (local, remote) => identify(agents, plain(local), plain(remote)),
    policiesOf: (agent) => policies.get(agent) ?? [],
    isOwn: (address) => own.some((cidr) => contains(cidr, address)),
    mark: canonicalJson([[...agents], [...policies], subnets]),
  }
}

/** Networks of ours are /24s. */
const prefixOf = (address: string): string => address.slice(0, address.lastIndexOf('.') + 1)
const plain = (address: string | undefined): string => address?.replace(/^::ffff:/, '') ?? ''

function identify(agents: ReadonlyMap<string, string>, local: string, remote: string): Client | null {
  const prefix = prefixOf(local)
  const agent = agents.get(prefix)
  // A packet may come to any address of ours over any network: both have to be of the same one.
  if (agent === undefined || local !== `${prefix}${HOST.egress}` || prefixOf(remote) !== prefix) return null
  const host = Number(remote.slice(prefix.length))
  if (!(host >= FIRST_ONE_OFF && host <= HOST.lastReplica)) return null
  return { agent, replica: Math.max(0, host - HOST.firstReplica + 1) }
}

/** The record is ours, but a rule that cannot be read must not count as one that is not there. */
function checked(policy: EgressPolicy | undefined, name: string): EgressPolicy {
  const isRule = ({ host, cidr, ports, scheme }: EgressRule, allows: boolean): boolean =>
    (typeof host === 'string') !== (typeof cidr === 'string') &&
    (typeof cidr !== 'string' || parseCidr(cidr) !== null) &&
    (Array.isArray(ports) || (ports === null && !allows)) &&
    (typeof scheme === 'string' || (scheme === null && !allows))
  const isWhole =
    Array.isArray(policy?.allow) &&
    Array.isArray(policy.deny) &&
    policy.allow.every((rule) => isRule(rule, true)) &&
    policy.deny.every((rule) => isRule(rule, false))
  if (!isWhole || policy === undefined) throw new Error(`egress.${name} of the record cannot be read`)
  return policy
}
