import type { Diagnostic, Place } from '../spec/diagnostic.ts'

export type Problem = (code: Diagnostic['code'], key: string, message: string, help: string) => void

/** The nearest place that the loader knows: of the key itself or of what encloses it. */
export function placeOf(places: ReadonlyMap<string, Place>, key: string): Place | null {
  for (let path = key; path !== ''; path = path.slice(0, Math.max(0, path.lastIndexOf('.')))) {
    const place = places.get(path)
    if (place !== undefined) return place
  }
  return null
}
