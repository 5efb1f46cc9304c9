import type { DoctorReport } from '../../doctor.ts'
import type { Paint } from '../io.ts'

const MARK = { ok: ['green', '✔'], warn: ['yellow', '!'], fail: ['red', '✘'] } as const

export function renderDoctor({ ok, checks }: DoctorReport, paint: Paint): string {
  const width = Math.max(...checks.map((it) => it.id.length))
  const lines = checks.map(({ id, status, found, expected, fix }) => {
    const [color, mark] = MARK[status]
    const head = ` ${paint(color, mark)} ${id.padEnd(width)}  ${found}`
    return status === 'ok'
      ? head
      : `${head}\n   ${' '.repeat(width)} expected: ${expected}${fix === null ? '' : `\n   ${' '.repeat(width)} fix: ${fix}`}`
  })
  return `${lines.join('\n')}\n${ok ? 'Ready.' : 'Something must be mended first.'}\n`
}
