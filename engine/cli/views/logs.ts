import type { LogLine } from '../log-stream.ts'
import { type Color, clean, type Paint } from '../io.ts'

export interface LogStyle {
  readonly prefix: boolean
  readonly timestamps: boolean
}

const COLORS: readonly Color[] = ['cyan', 'yellow', 'green', 'magenta', 'blue']

/** `coder-1  | text`, as Compose writes it; each container keeps its colour and the widest name sets the column. */
export function logRenderer({ prefix, timestamps }: LogStyle): (line: LogLine, paint: Paint) => string {
  const colors = new Map<string, Color>()
  let width = 0
  return (entry, paint) => {
    const name = shortName(entry)
    width = Math.max(width, name.length)
    const color = colors.get(name) ?? COLORS[colors.size % COLORS.length] ?? 'cyan'
    colors.set(name, color)
    const head = prefix ? paint(color, `${name.padEnd(width)}  | `) : ''
    return `${head}${timestamps && entry.time !== null ? `${entry.time} ` : ''}${printable(entry.line)}\n`
  }
}

function shortName({ agent, service, replica, container }: LogLine): string {
  const name = agent ?? service
  return name === null ? (/agentctl-[a-z]+/.exec(container)?.[0] ?? container) : `${name}-${replica}`
}

/** Colours may pass, everything else that a terminal would act on may not: the lines are an agent's. */
const printable = (line: string): string =>
  line
    .split(/(\u001b\[[\d;]*m)/)
    .map((part, index) => (index % 2 === 1 ? part : clean(part)))
    .join('')
