/**
 * What kind of address it is. Egress dials public ones for a host rule, private ones where a `cidr` rule names them, and some
 * never: they lead into the egress container itself, to the metadata service of a cloud, or to an address inside an address.
 */
import { type Address, type Cidr, contains, parseCidr } from './addresses.ts'

export type Reach = 'public' | 'explicit' | 'never'
export interface AddressClass {
  readonly reach: Reach
  /** As in "resolves to a loopback address". */
  readonly name: string
}

/** The first that fits: single metadata addresses before the ranges that they lie in. */
const CLASSES: readonly (readonly [reach: Reach, name: string, cidrs: readonly string[]])[] = [
  // Alibaba, Azure, Oracle, AWS over IPv6, Google over IPv6; the others lie in 169.254.0.0/16.
  ['never', 'a metadata', ['100.100.100.200/32', '168.63.129.16/32', '192.0.0.192/32', 'fd00:ec2::/32', 'fd20:ce::254/128']],
  ['never', 'an unspecified', ['0.0.0.0/8', '::/128']],
  ['never', 'a loopback', ['127.0.0.0/8', '::1/128']],
  ['never', 'a link-local', ['169.254.0.0/16', 'fe80::/10']],
  ['never', 'a multicast', ['224.0.0.0/4', 'ff00::/8']],
  ['never', 'a reserved', ['240.0.0.0/4', '192.0.0.0/24', '192.88.99.0/24', '100::/64']],
  // Mapped, compatible, NAT64, 6to4, Teredo: whoever unpacks them reaches an IPv4 address that nobody looked at.
  ['never', 'an embedded IPv4', ['::ffff:0:0/96', '::/96', '64:ff9b::/96', '64:ff9b:1::/48', '2002::/16', '2001::/32']],
  ['explicit', 'a private', ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7', 'fec0::/10']],
  ['explicit', 'a test', ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24', '198.18.0.0/15', '2001:db8::/32']],
  ['public', 'a public', ['0.0.0.0/0', '2000::/3']],
]

const RANGES: readonly (AddressClass & { readonly cidr: Cidr })[] = CLASSES.flatMap(([reach, name, cidrs]) =>
  cidrs.flatMap((text) => {
    const cidr = parseCidr(text)
    return cidr === null ? [] : [{ reach, name, cidr }]
  }),
)
/** Of IPv6 only 2000::/3 is given out. */
const UNKNOWN: AddressClass = { reach: 'never', name: 'a reserved' }

export const classOf = (address: Address): AddressClass => RANGES.find(({ cidr }) => contains(cidr, address)) ?? UNKNOWN
