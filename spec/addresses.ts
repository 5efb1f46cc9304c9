/** IP addresses and ranges as numbers. Pure. */
import { isIP } from 'node:net'

export interface Address {
  readonly family: 4 | 6
  readonly value: bigint
}
export interface Cidr extends Address {
  readonly bits: number
}

const WIDTH = { 4: 32n, 6: 128n } as const

/** null: no address. Of IPv6 without brackets and without a zone. */
export function parseAddress(text: string): Address | null {
  switch (isIP(text)) {
    case 4:
      return { family: 4, value: text.split('.').reduce((sum, part) => (sum << 8n) + BigInt(part), 0n) }
    case 6:
      return text.includes('%') ? null : { family: 6, value: parseSix(text) }
    default:
      return null
  }
}

/** `isIP` has said that it is one. */
function parseSix(text: string): bigint {
  const [, front = '', last] = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text) ?? []
  const four = last === undefined ? null : (parseAddress(last)?.value ?? 0n)
  const whole = four === null ? text : `${front}${(four >> 16n).toString(16)}:${(four & 0xffffn).toString(16)}`
  const [head = '', tail] = whole.split('::')
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'))
  const [before, after] = [groups(head), groups(tail ?? '')]
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - before.length - after.length }, () => '0')
  return [...before, ...zeros, ...after].reduce((sum, group) => (sum << 16n) + BigInt(`0x${group}`), 0n)
}

/** ADDRESS/BITS; null: malformed, or with bits set behind the prefix, which is a typing error as a rule. */
export function parseCidr(text: string): Cidr | null {
  const [, base = '', digits = ''] = /^([0-9A-Fa-f:.]+)\/(\d{1,3})$/.exec(text) ?? []
  const address = parseAddress(base)
  const bits = Number(digits)
  if (address === null || BigInt(bits) > WIDTH[address.family]) return null
  const cidr = { ...address, bits }
  return network(cidr, address) === address.value ? cidr : null
}

const network = ({ family, bits }: Cidr, { value }: Address): bigint => {
  const low = WIDTH[family] - BigInt(bits)
  return (value >> low) << low
}

export const contains = (cidr: Cidr, address: Address): boolean => cidr.family === address.family && network(cidr, address) === cidr.value
