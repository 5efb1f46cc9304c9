/** JSON in the user's editor, as `kubectl edit` does it: opened again until it is JSON, or left as it was. */
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Json } from '../../spec/protocol.ts'
import { AgentctlError, EXIT } from '../errors.ts'
import type { Io } from './io.ts'

/** null: nothing was changed. */
export async function editJson(
  value: Json,
  { environment, stderr }: Pick<Io, 'environment' | 'stderr'>,
  name: string,
): Promise<{ readonly value: Json } | null> {
  const editor = [environment['VISUAL'], environment['EDITOR'], 'vi'].find((it) => it !== undefined && it.trim() !== '') as string
  const folder = await mkdtemp(join(tmpdir(), 'agentctl-edit-'))
  const file = join(folder, 'input.json')
  const before = `${JSON.stringify(value, null, 2)}\n`
  try {
    // An input may hold what others must not read.
    await writeFile(file, before, { mode: 0o600 })
    for (let last = before; ; ) {
      await run(editor, file, environment)
      const text = await readFile(file, 'utf8')
      if (text === before) return null
      try {
        return { value: JSON.parse(text) as Json }
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        if (text === last)
          throw new AgentctlError('AG7001', `the ${name} is not JSON: ${why}`, { hint: 'Nothing was submitted.', exit: EXIT.usage })
        stderr.write(`the ${name} is not JSON: ${why}\n`)
        last = text
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** $EDITOR may hold flags ("code --wait"), so a shell takes it apart; the file is no part of its text. */
async function run(editor: string, file: string, environment: Io['environment']): Promise<void> {
  const child = spawn('/bin/sh', ['-c', `${editor} "$1"`, 'sh', file], { stdio: 'inherit', env: environment as NodeJS.ProcessEnv })
  const ended = await new Promise<string | null>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, signal) => resolve(code === 0 ? null : `ended with ${signal ?? code}`))
  })
  if (ended === null) return
  throw new AgentctlError('AG7001', `the editor "${editor}" ${ended}`, {
    hint: 'Set VISUAL or EDITOR, or give the input with --input JSON. Nothing was submitted.',
    exit: EXIT.usage,
  })
}
