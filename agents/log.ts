/** One JSON object per line on stdout: what `agentctl logs` shows. */

export type Fields = { readonly [name: string]: unknown }

export function logLine(level: 'info' | 'warn' | 'error', message: string, fields: Fields = {}): string {
  try {
    return `${JSON.stringify({ ...fields, at: new Date().toISOString(), level, message })}\n`
  } catch {
    return `${JSON.stringify({ at: new Date().toISOString(), level, message, note: 'the fields are not JSON' })}\n`
  }
}

export function log(level: 'info' | 'warn' | 'error', message: string, fields: Fields = {}): void {
  process.stdout.write(logLine(level, message, fields))
}
