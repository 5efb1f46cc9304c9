/** The project record, looked at twice a second: a volume tells nobody of a change. */
import { readFile, stat } from 'node:fs/promises'

const POLL_MS = 500

/**
 * Calls `changed` with its text at once if there is one, and after every change; null: it is gone. What `changed` throws is read
 * again at the next look: a record that is half written does not parse.
 */
export async function watchRecord(file: string, changed: (text: string | null) => void): Promise<() => void> {
  let seen = ''
  const look = async (): Promise<void> => {
    const found = await stat(file).catch(() => null)
    const mark = found === null ? 'none' : `${found.ino}:${found.size}:${found.mtimeMs}`
    if (mark === seen) return
    changed(found === null ? null : await readFile(file, 'utf8'))
    seen = mark
  }
  await look().catch(() => {})
  const timer = setInterval(() => void look().catch(() => {}), POLL_MS)
  return () => clearInterval(timer)
}
