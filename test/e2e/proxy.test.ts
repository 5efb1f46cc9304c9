/** An application beside a project that is up: it submits through the doors that `agentctl proxy` opens, and nothing of them stays. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connect } from '../../engine/client/index.ts'
import { agentctl, eventually, leftovers, projectFolder, type Result, run, start } from './cli-process.ts'

const { name, folder } = projectFolder('proxy', (project) => ({
  'agents.yaml': `name: ${project}\nagents:\n  shell: { handler: exec, mem_limit: 64m }\n`,
}))
const here = { cwd: folder }
const cli = (...args: readonly string[]): Promise<Result> => agentctl(args, here)
const done = (result: Result): Result => {
  if (result.code !== 0) throw new Error(`exit ${result.code}\n${result.stdout}\n${result.stderr}`)
  return result
}

beforeAll(async () => void done(await cli('up', '-d')), 300_000)
afterAll(async () => {
  done(await cli('down', '-v'))
  expect(await leftovers(name)).toEqual([])
}, 120_000)

test('a socket: submit, follow, read; Ctrl-C leaves nothing behind', async () => {
  const proxy = start(['proxy', '--socket', 'control.sock', '--format', 'json'], here)
  await proxy.shows('"socket"')
  const socket = join(folder, 'control.sock')
  expect(JSON.parse(proxy.stdout())).toEqual({ project: name, socket })
  expect(statSync(socket).mode & 0o777).toBe(0o600)
  const client = connect({ socket })
  const { run: id } = await client.submit({
    agent: 'shell',
    type: 'task',
    tasks: [{ command: 'echo hello' }, { command: 'exit 3', check: true }],
  })
  const seen: string[] = []
  for await (const event of client.events(id, { follow: true })) seen.push(event.event)
  expect(seen.filter((it) => it === 'completed' || it === 'failed').sort()).toEqual(['completed', 'failed'])
  const view = await client.wait(id)
  expect(view.jobs[0]?.result).toMatchObject({ exit_code: 0, stdout: 'hello\n' })
  client.close()
  proxy.signal('SIGINT')
  expect((await proxy.result).code).toBe(0)
  expect(existsSync(socket)).toBe(false)
  // Its streams into the gateway's container have ended too; the controller has one of its own.
  const streams = async (): Promise<number> =>
    (await run('docker', ['top', `${name}-agentctl-gateway-1`, '-eo', 'pid,comm'])).match(/socat/g)?.length ?? 0
  await eventually(async () => (await streams()) <= 1, 'no socat of the proxy is left in the gateway')

  // The same work, by the verbs.
  const letters = done(await cli('dlq', 'ls', '--format', 'json')).json().tasks
  expect(letters.map((it: { id: string }) => it.id)).toEqual([`${id}.task.1`])
  const letter = done(await cli('dlq', 'show', `${id}.task.1`, '--format', 'json')).json()
  expect(letter.input).toEqual({ command: 'exit 3', check: true })
  const again = await cli('dlq', 'retry', `${id}.task.1`, '--input', '{"command": "echo mended"}', '--format', 'json')
  expect(done(again).json()).toMatchObject({ status: 'completed', result: { stdout: 'mended\n' } })
  expect(done(await cli('dlq', 'drop', '--all')).stdout).toBe('1 dropped\n')
  expect(done(await cli('dlq', 'ls')).stdout).toBe('no dead letters\n')
  expect(done(await cli('explain', `${id}.task.0`)).stdout).toContain('ended: it ended completed')
  expect(done(await cli('runs', 'show', id)).stdout).toMatch(/^ {2}JOB +AGENT +STATUS +ATTEMPTS +WAITED +RAN +INPUT +RESULT$/m)
  const failed = done(await cli('runs', 'ls', '--status', 'failed', '-q')).stdout.trim()
  expect(failed).toBe(id)
  const retried = await cli('runs', 'retry', id, '--format', 'json')
  expect([retried.code, retried.json().jobs.length, retried.json().retry_of]).toEqual([1, 1, id])
}, 120_000)

test('a loopback port with a token: events as they come, by any client of HTTP', async () => {
  const proxy = start(['proxy', '--port', '--token-file', 'token', '--format', 'json'], here)
  await proxy.shows('"token"')
  const { url, token } = JSON.parse(proxy.stdout()) as { url: string; token: string }
  expect(readFileSync(join(folder, 'token'), 'utf8')).toBe(`${token}\n`)
  expect((await fetch(`${url}/v1/runs`)).status).toBe(401)
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const body = JSON.stringify({
    agent: 'shell',
    tasks: [{ command: 'sleep 0.3; echo done' }],
    priority: 5,
    timeouts: { schedule_to_close_ms: 60_000 },
  })
  const made = await fetch(`${url}/v1/runs`, { method: 'POST', headers, body })
  const { run: id } = (await made.json()) as { run: string }
  const stream = await fetch(`${url}/v1/runs/${id}/events`, { headers: { ...headers, accept: 'text/event-stream' } })
  expect(stream.headers.get('content-type')).toBe('text/event-stream')
  const text = await stream.text()
  expect(text).toMatch(/^retry: /)
  expect(text).toContain(`event: end\ndata: {"run":"${id}","status":"completed"}`)
  const document = (await (await fetch(`${url}/v1/openapi.json`, { headers })).json()) as { openapi: string }
  expect(document.openapi).toBe('3.1.0')
  proxy.signal('SIGTERM')
  expect((await proxy.result).code).toBe(0)
  await expect(fetch(`${url}/v1/health`, { headers })).rejects.toThrow()
}, 120_000)

test('a project that is not up has no door', async () => {
  const result = await agentctl(['-p', 't-proxy-nothing', 'proxy', '--socket', 'x.sock'], here)
  expect([result.code, existsSync(join(folder, 'x.sock'))]).toEqual([2, false])
  expect(result.stderr).toContain('AG4012')
}, 60_000)
