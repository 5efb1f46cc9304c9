/** Run ids: `run_` + a ULID, rising within this process, so that ids sort by time. */
import { randomBytes } from 'node:crypto'

const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
export const RUN_ID: RegExp = /^run_[0-9A-HJKMNP-TV-Z]{26}$/

const encode = (value: bigint, length: number): string => {
  let text = ''
  for (let rest = value; text.length < length; rest >>= 5n) text = ALPHABET[Number(rest & 31n)] + text
  return text
}

let last = { time: 0, random: 0n }

export function ulid(now: number = Date.now()): string {
  const time = Math.max(now, last.time)
  // The top bit stays free, so that counting up within one millisecond cannot overflow.
  const random = time === last.time ? last.random + 1n : BigInt(`0x${randomBytes(10).toString('hex')}`) >> 1n
  last = { time, random }
  return encode(BigInt(time), 10) + encode(random, 16)
}

export const newRunId = (): string => `run_${ulid()}`
