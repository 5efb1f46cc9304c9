/**
 * BullMQ's two scripts of every task, written as bytes. The library packs their arguments anew for each call and writes them piece by
 * piece: of the 114 µs of the gateway per task (a profile of 62,000 tasks) that was 18 µs for an add and 17 µs for an end. Here the
 * library makes the arguments once per queue and holder, with marks where a task's own values stand, and calls fill in the marks.
 */
import { Command, type Redis } from 'ioredis'

type Argument = string | number | Buffer | undefined
export interface Script {
  readonly sha: string
  readonly numberOfKeys: number
}

/** As long as a time in ms is. No key, id or value holds it. */
const TIME_MARK = 1_111_111_111_111
export const MARKS: { readonly id: string; readonly value: string; readonly time: number } = {
  id: '\u0001id\u0001',
  value: '\u0001value\u0001',
  time: TIME_MARK,
}
const CACHED = 10_000

/** Before, between and after the marks: what is the same in each call. */
export interface Template {
  readonly texts: readonly string[]
  readonly slots: readonly { readonly kind: 'id' | 'value' | 'time'; readonly prefix: string }[]
  readonly tail: Buffer
}

class WrittenCommand extends Command {
  bytes: Buffer | null = null
  override toWritable(): string | Buffer {
    return this.bytes as Buffer
  }
}

/** Sends what `bytes` says; a Redis that does not know the script answers NOSCRIPT. */
export function send(client: Redis, bytes: Buffer): Promise<unknown> {
  const command = new WrittenCommand('evalsha', [], { replyEncoding: 'utf8' })
  command.bytes = bytes
  void client.sendCommand(command)
  return command.promise
}

export const scriptOf = (client: Redis, name: string): Script | null =>
  (client as unknown as { readonly scriptsSet: { readonly [name: string]: Script | undefined } }).scriptsSet[name] ?? null

export const isUnknownScript = (error: unknown): boolean => error instanceof Error && error.message.startsWith('NOSCRIPT')

const head = (text: string): string => `$${Buffer.byteLength(text)}\r\n${text}\r\n`
const call = ({ sha, numberOfKeys }: Script, args: readonly Argument[]): string =>
  `*${args.length + 3}\r\n${head('evalsha')}${head(sha)}${head(String(numberOfKeys))}`
const bytesOf = (arg: Argument): Buffer =>
  Buffer.isBuffer(arg) ? Buffer.concat([Buffer.from(`$${arg.length}\r\n`), arg, Buffer.from('\r\n')]) : Buffer.from(head(String(arg ?? '')))
const kindOf = (arg: Argument): Template['slots'][number]['kind'] | null => {
  if (arg === MARKS.time) return 'time'
  if (arg === MARKS.value) return 'value'
  return typeof arg === 'string' && arg.endsWith(MARKS.id) ? 'id' : null
}

export function template(script: Script, args: readonly Argument[]): Template {
  const texts: string[] = []
  const slots: Template['slots'][number][] = []
  const last = args.findLastIndex((arg) => kindOf(arg) !== null)
  let text = call(script, args)
  for (const arg of args.slice(0, last + 1)) {
    if (Buffer.isBuffer(arg)) throw new Error('a mark after binary arguments')
    const given = String(arg ?? '')
    const kind = kindOf(arg)
    if (kind === null) {
      text += head(given)
      continue
    }
    texts.push(text)
    text = ''
    slots.push({ kind, prefix: kind === 'id' ? given.slice(0, -MARKS.id.length) : '' })
  }
  return { texts, slots, tail: Buffer.concat(args.slice(last + 1).map(bytesOf)) }
}

/** `id` is ASCII. */
export function filled({ texts, slots, tail }: Template, id: string, value: string): Buffer {
  let text = ''
  for (let at = 0; at < slots.length; at++) {
    const { kind, prefix } = slots[at] as Template['slots'][number]
    text += texts[at]
    if (kind === 'id') text += `$${prefix.length + id.length}\r\n${prefix}${id}\r\n`
    else if (kind === 'time') text += `$13\r\n${Date.now()}\r\n`
    else text += `$${Buffer.byteLength(value)}\r\n${value}\r\n`
  }
  const size = Buffer.byteLength(text)
  const bytes = Buffer.allocUnsafe(size + tail.length)
  bytes.write(text, 0, size, size === text.length ? 'latin1' : 'utf8')
  tail.copy(bytes, size)
  return bytes
}

/** Templates by what they depend on; holders come and go. */
export class Templates {
  readonly #known = new Map<string, Template>()
  get(key: string, make: () => Template): Template {
    const known = this.#known.get(key)
    if (known !== undefined) return known
    if (this.#known.size >= CACHED) this.#known.clear()
    const made = make()
    this.#known.set(key, made)
    return made
  }
}

/** What adding a plain job writes: fixed bytes, packed arguments with the id and the time in them, the data, fixed bytes. */
export interface AddTemplate {
  readonly head: Buffer
  readonly packed: Buffer
  readonly idAt: number
  readonly timeAt: number
  /** The library packs a time as an integer or as a double. */
  readonly isDouble: boolean
  readonly tail: Buffer
}

/** An id of this length that no packed bytes look like. */
export const idMark = (length: number): string => '\u0001'.repeat(length)

/** `args`: of addStandardJob, for a job with `idMark` as id, MARKS.time and MARKS.value. */
export function addTemplate(script: Script, args: readonly Argument[], idLength: number): AddTemplate {
  const at = args.indexOf(MARKS.value)
  const packed = args[at - 1]
  if (!Buffer.isBuffer(packed)) throw new Error('addStandardJob has other arguments than expected')
  const time = Buffer.alloc(8)
  time.writeDoubleBE(TIME_MARK)
  const isDouble = packed.includes(time)
  if (!isDouble) time.writeBigUInt64BE(BigInt(TIME_MARK))
  const idAt = packed.indexOf(idMark(idLength))
  const timeAt = packed.indexOf(time)
  if (idAt < 0 || timeAt < 0) throw new Error('addStandardJob packs other values than expected')
  return {
    head: Buffer.concat([Buffer.from(call(script, args)), ...args.slice(0, at - 1).map(bytesOf), Buffer.from(`$${packed.length}\r\n`)]),
    packed,
    idAt,
    timeAt,
    isDouble,
    tail: Buffer.concat([Buffer.from('\r\n'), ...args.slice(at + 1).map(bytesOf)]),
  }
}

export function filledAdd(
  { head: before, packed, idAt, timeAt, isDouble, tail }: AddTemplate,
  id: string,
  data: string,
  now: number,
): Buffer {
  const size = Buffer.byteLength(data)
  const length = `\r\n$${size}\r\n`
  const bytes = Buffer.allocUnsafe(before.length + packed.length + length.length + size + tail.length)
  before.copy(bytes, 0)
  let at = before.length
  packed.copy(bytes, at)
  bytes.write(id, at + idAt, id.length, 'latin1')
  if (isDouble) bytes.writeDoubleBE(now, at + timeAt)
  else bytes.writeBigUInt64BE(BigInt(now), at + timeAt)
  at += packed.length
  bytes.write(length, at, length.length, 'latin1')
  at += length.length
  bytes.write(data, at, size, size === data.length ? 'latin1' : 'utf8')
  tail.copy(bytes, at + size)
  return bytes
}
