/** `artifacts get` against a gateway that is only a server on a socket: whole and right, or no file. */
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { Session } from '../../../engine/cli/session.ts'
import { artifacts } from '../../../engine/cli/verbs/artifacts.ts'
import { openControl } from '../../../engine/control.ts'
import { AgentctlError } from '../../../engine/errors.ts'
import { answer, fakeGateway } from './fake-gateway.ts'

const folder = mkdtempSync(join(tmpdir(), 't-artifacts-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const BYTES = Buffer.from('a report')
const digest = `sha256:${createHash('sha256').update(BYTES).digest('hex')}`
const ARTIFACTS = [{ name: 'report', digest, size: BYTES.length, type: 'text/plain', task: 'run_1.make.0' }]

/** The code of its error, or null. */
async function get(name: string, blob: RequestListener, output?: string): Promise<string | null> {
  await using gateway = await fakeGateway((request, response) =>
    request.url?.startsWith('/v1/artifacts/') === true ? blob(request, response) : answer(response, 200, { artifacts: ARTIFACTS }),
  )
  const { signal } = new AbortController()
  const control = await openControl(gateway.runtime, 'p', signal, { retry_ms: 0 })
  const session = {
    io: { cwd: folder },
    out: { json: output === '-', print: async () => undefined },
    globals: { quiet: false },
    signal,
    project: async () => 'p',
    control: async () => ({ control }),
  } as unknown as Session
  return await artifacts(session, { args: ['get', 'run_1', name], options: output === undefined ? {} : { output } })
    .then(
      () => null,
      (error: unknown) => (error instanceof AgentctlError ? `${error.code}: ${error.message}` : String(error)),
    )
    .finally(() => control.close())
}
const whole: RequestListener = (_request, response) => void response.end(BYTES)

test('by name and by digest', async () => {
  expect(await get('report', whole)).toBeNull()
  expect(readFileSync(join(folder, 'report'))).toEqual(BYTES)
  expect(await get(digest, whole, 'other')).toBeNull()
  expect(readFileSync(join(folder, 'other'))).toEqual(BYTES)
})

test.each<readonly [string, RequestListener, RegExp]>([
  ['other bytes', (_request, response) => void response.end('A report'), /^AG5001: the artifact sha256:/],
  [
    'a connection that breaks in the middle',
    (_request, response) => {
      response.writeHead(200, { 'content-length': BYTES.length })
      response.write('a re', () => response.destroy())
    },
    /^AG5001: the gateway broke off in the middle of the artifact sha256:/,
  ],
])('%s: an error with a code, and nothing is written', async (_name, blob, expected) => {
  const before = readdirSync(folder)
  expect(await get('report', blob, 'broken')).toMatch(expected)
  expect(readdirSync(folder)).toEqual(before)
})

test('a place that cannot be written, a name that is not there, and stdout for two things are told apart', async () => {
  expect(await get('report', whole, 'no/such/folder/file')).toMatch(/^AG7001: .*cannot be written: ENOENT/)
  expect(await get('else', whole)).toBe('AG6010: run run_1 has no artifact "else"')
  expect(await get('report', whole, '-')).toMatch(/^AG7001: -o - writes the bytes to stdout/)
  expect(existsSync(join(folder, 'else'))).toBe(false)
})
