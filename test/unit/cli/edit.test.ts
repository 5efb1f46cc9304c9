import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, expect, test } from 'vitest'
import { editJson } from '../../../engine/cli/edit.ts'
import type { AgentctlError } from '../../../engine/errors.ts'
import type { Json } from '../../../spec/protocol.ts'

const folder = mkdtempSync(join(tmpdir(), 't-edit-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** An editor that is a script: `$1` is the file. */
function editor(name: string, script: string): string {
  const path = join(folder, name)
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
  return path
}
async function edit(
  value: Json,
  environment: Record<string, string>,
): Promise<{ result: Awaited<ReturnType<typeof editJson>>; said: string }> {
  const stderr = new PassThrough()
  const before = readdirSync(tmpdir()).filter((it) => it.startsWith('agentctl-edit-'))
  try {
    const result = await editJson(value, { environment: { PATH: process.env['PATH'] ?? '', ...environment }, stderr }, 'input of x')
    return { result, said: String(stderr.read() ?? '') }
  } finally {
    // What was edited may be a secret: it does not stay.
    expect(readdirSync(tmpdir()).filter((it) => it.startsWith('agentctl-edit-'))).toEqual(before)
  }
}

test('the editor gets the value as JSON in a file of its own, and what it leaves is the new value', async () => {
  const script = editor('sed', `[ "$(stat -c %a "$1")" = 600 ] || exit 9\nsed -i 's/"ls"/"make"/' "$1"`)
  expect((await edit({ command: 'ls', n: [1] }, { EDITOR: script })).result).toEqual({ value: { command: 'make', n: [1] } })
})

test('VISUAL wins over EDITOR, and may have flags', async () => {
  const script = editor('flags', `[ "$1" = --wait ] || exit 9\necho '"new"' > "$2"`)
  expect((await edit('old', { EDITOR: 'false', VISUAL: `${script} --wait` })).result).toEqual({ value: 'new' })
})

test('nothing changed is nothing to do', async () => {
  expect((await edit({ a: 1 }, { EDITOR: 'true' })).result).toBeNull()
})

test('what is no JSON is opened again, with the reason', async () => {
  const script = editor('twice', `if grep -q oops "$1"; then echo '[2]' > "$1"; else echo oops > "$1"; fi`)
  const { result, said } = await edit([1], { EDITOR: script })
  expect(result).toEqual({ value: [2] })
  expect(said).toMatch(/^the input of x is not JSON: /)
})

test('left as no JSON, or an editor that fails: AG7001, and nothing is submitted', async () => {
  const failure = async (script: string): Promise<AgentctlError> =>
    await edit(1, { EDITOR: script }).then(
      () => Promise.reject(new Error('fine')),
      (error) => error as AgentctlError,
    )
  const stubborn = await failure(editor('stubborn', `echo '{' > "$1"`))
  expect([stubborn.code, stubborn.exit, stubborn.message]).toEqual(['AG7001', 2, expect.stringContaining('the input of x is not JSON')])
  expect((await failure('false')).message).toContain('the editor "false" ended with 1')
  expect((await failure('no-such-editor-here')).message).toContain('ended with 127')
})
