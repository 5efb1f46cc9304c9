/** What a verb is: told to commander by `program.ts`, its code loaded when it is called. */
import type { Session } from './session.ts'

/** Arguments and options as commander parsed them. */
export interface Call {
  readonly args: readonly string[]
  readonly options: { readonly [name: string]: unknown }
}
/** Resolves to the exit code. */
export type Run = (session: Session, call: Call) => Promise<number>

export const flag = ({ options }: Call, name: string): boolean => options[name] === true
export const value = ({ options }: Call, name: string): string | null => {
  const given = options[name]
  return typeof given === 'string' ? given : null
}
export const values = ({ options }: Call, name: string): readonly string[] => {
  const given = options[name]
  return Array.isArray(given) ? given.filter((it) => typeof it === 'string') : []
}
