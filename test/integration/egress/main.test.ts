/** The program as its container runs it: what it learns from the record, what it writes, and that a record which cannot be read changes nothing. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { at, recordText } from '../../support/egress.ts'
import { OtlpReceiver } from '../../support/otlp.ts'

const file = (allow: string, endpoint: string): string =>
  `telemetry: { endpoint: "${endpoint}" }\negress:\n  w: { allow: ${allow} }\nagents:\n  web: { egress: [w] }\n  other: {}\n`
let folder: string
let receiver: OtlpReceiver
let child: ChildProcess
let [out, err] = ['', '']

const write = async (text: string): Promise<void> => {
  await writeFile(join(folder, 'new'), text)
  await rename(join(folder, 'new'), join(folder, 'record.json'))
}
const port = (name: RegExp): number => Number(name.exec(err)?.[1])

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'egress-main-'))
  receiver = await OtlpReceiver.start()
  ;[out, err] = ['', '']
  await write(recordText(file('[{ host: allowed.invalid, scheme: http }]', receiver.url)))
  child = spawn(process.execPath, ['engine/egress/main.ts', join(folder, 'record.json'), '0', '0'], {
    env: { ...process.env, AGENTCTL_CONTROL: '127.0.60.0/24' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout?.on('data', (chunk) => (out += String(chunk)))
  child.stderr?.on('data', (chunk) => (err += String(chunk)))
  await vi.waitFor(() => expect(err).toMatch(/"listening on port/), 20_000)
}, 30_000)
afterEach(async () => {
  child.kill('SIGKILL')
  await receiver.stop()
  await rm(folder, { recursive: true })
})

const ask = (url: string): Promise<string> =>
  new Promise((resolve) => {
    const outgoing = request({ ...at('web'), port: port(/proxy listens on port (\d+)/), path: url }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      answer.on('end', () => resolve(`${answer.statusCode} ${text.trim()}`))
    })
    outgoing.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
    outgoing.end()
  })

test('a decision is a line on stdout and a span', async () => {
  expect(await ask('http://denied.invalid/secret?key=canary')).toBe(
    '403 denied by agents.yaml:3 egress.w; add {host: denied.invalid, scheme: http} to egress.w.allow',
  )
  await vi.waitFor(() => expect(out).toContain('"denied.invalid"'))
  expect(JSON.parse(out)).toMatchObject({
    audit: 'egress',
    agent: 'web',
    replica: 1,
    host: 'denied.invalid',
    port: 80,
    scheme: 'http',
    method: 'GET',
    verdict: 'deny',
    reason: 'no_rule',
    rule: null,
  })
  await vi.waitFor(() => expect(receiver.spans().map(({ name }) => name)).toContain('egress web'), 10_000)
  const span = receiver.spans().find(({ name }) => name === 'egress web')
  expect(span?.attributes).toMatchObject({
    'server.address': 'denied.invalid',
    'agentctl.egress.verdict': 'deny',
    'agentctl.egress.reason': 'no_rule',
    'error.type': 'no_rule',
  })
  expect(`${out}${err}${JSON.stringify(receiver.spans())}`).not.toContain('canary')
}, 30_000)

test('the rules are followed; a record that cannot be read leaves those of before', async () => {
  const denied = /^403 denied by agents.yaml:3/
  await write(recordText(file('[]', receiver.url)))
  await vi.waitFor(async () => expect(await ask('http://allowed.invalid/')).toMatch(denied), 5_000)
  await write('{"version": 1, "project": {"agents"')
  await vi.waitFor(() => expect(err).toContain('cannot be read, those of before hold on'), 5_000)
  expect(await ask('http://allowed.invalid/')).toMatch(denied)
  await write(recordText(file('["*.wild.invalid"]', receiver.url)))
  await vi.waitFor(() => expect(err.match(/egress rules read/g)).toHaveLength(3), 5_000)
}, 30_000)

test('telemetry is taken from the control network alone', async () => {
  const send = (host: string, localAddress: string): Promise<string> =>
    new Promise((resolve) => {
      const outgoing = request({ host, localAddress, port: port(/"listening on port (\d+)/), path: '/healthz' }, (answer) =>
        resolve(String(answer.resume().statusCode)),
      )
      outgoing.on('error', () => resolve('hung up'))
      outgoing.end()
    })
  expect(await send('127.0.60.3', '127.0.60.2')).toBe('200')
  expect(await send('127.0.0.1', '127.0.0.1')).toBe('200')
  expect(await send('127.0.61.3', '127.0.61.9')).toBe('hung up')
  expect(await send('127.0.60.3', '127.0.61.9')).toBe('hung up')
}, 30_000)
