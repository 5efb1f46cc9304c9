/** Verbs with a word after them: `runs ls`, `dlq drop`. */
import { nearest } from '../../spec/suggest.ts'
import { parseCount } from './arguments.ts'
import { usage } from './failure.ts'
import { type Call, value } from './verb.ts'

/** Of what a word takes: how many arguments, and what each is called. */
export interface Takes {
  readonly min: number
  readonly max: number
  readonly what: string
  /** How to find one. */
  readonly hint?: string
}

/** The word, if it is one of the verb's and has the arguments that it takes. */
export function wordOf<Word extends string>(
  verb: string,
  [given = '', ...rest]: readonly string[],
  words: { readonly [word in Word]: Takes },
): { readonly word: Word; readonly args: readonly string[] } {
  const names = Object.keys(words)
  const takes = Object.hasOwn(words, given) ? words[given as Word] : undefined
  if (takes === undefined) {
    const near = nearest(given, names)
    throw usage(
      `${verb} has no "${given}": expected one of ${names.join(', ')}`,
      near === null ? `See \`agentctl ${verb} --help\`.` : `Did you mean ${near}?`,
    )
  }
  if (rest.length < takes.min) throw usage(`${verb} ${given} expects ${takes.what}`, takes.hint)
  if (rest.length > takes.max) throw usage(`${verb} ${given} got too many arguments`)
  return { word: given as Word, args: rest }
}

/** Refuses flags that this word does not take: `of` says which words take which. */
export function checkFlags(verb: string, word: string, { options }: Call, of: { readonly [flag: string]: readonly string[] }): void {
  for (const [name, words] of Object.entries(of))
    if (options[name] !== undefined && !words.includes(word))
      throw usage(`${name.length === 1 ? `-${name}` : `--${name}`} is for ${verb} ${words.join(' and ')}, not for ${verb} ${word}`)
}

const DEFAULT_LIMIT = 100

/** The `--limit` of a list. */
export function limitOf(call: Call): number {
  const given = value(call, 'limit')
  if (given === null) return DEFAULT_LIMIT
  const limit = parseCount('--limit', given)
  if (limit === 0) throw usage('--limit expects at least 1')
  return limit
}

/** The id of a task names its run. */
export const runOf = (id: string): string => id.replace(/\..*$/s, '')
