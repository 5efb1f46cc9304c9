/** Keeps the proxy at what the record says. One that cannot be read changes nothing: neither opens it anything, nor does it close what is right. */
import type { Proxy } from './proxy.ts'
import { segmentsOf } from './segments.ts'
import { watchRecord } from './watch-record.ts'

export async function followRecord(record: string, proxy: Proxy, note: (message: string) => void): Promise<() => void> {
  let mark = ''
  let problem = ''
  return await watchRecord(record, (text) => {
    // The project is being taken down, or has not begun.
    if (text === null) return
    try {
      const segments = segmentsOf(text)
      problem = ''
      if (segments.mark === mark) return
      proxy.use(segments)
      mark = segments.mark
      note('egress rules read')
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      if (why !== problem) note(`the egress rules of the record cannot be read, those of before hold on: ${why}`)
      problem = why
      throw error
    }
  })
}
