/** Agents as images against the protocol: `agentctl conformance --image`, and examples/python-agent as a container of a project. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { RULE_IDS } from '../../agents/conformance/kit.ts'
import { images, uniqueProject } from '../support/docker.ts'
import { pythonImage } from '../support/python-image.ts'
import { stack } from '../support/stack.ts'
import { agentctl } from './cli-process.ts'

const ROOT = join(import.meta.dirname, '../..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const docker = (...args: readonly string[]) => promisify(execFile)('docker', args, { timeout: 60_000 })

const name = uniqueProject('t-python')
const [python, words] = [`${name}:base`, `${name}:1`]
beforeAll(async () => {
  await images()
  await pythonImage(python)
  await docker('build', '--quiet', '--build-arg', `PYTHON=${python}`, '--tag', words, join(ROOT, 'examples/python-agent'))
}, 600_000)
afterAll(() => docker('image', 'rm', '--force', words, python))

const kept = RULE_IDS.map((id) => [id, 'kept'])
const conformance = async (image: string, ...args: readonly string[]) => {
  const { code, stdout, stderr } = await agentctl(['conformance', '--image', image, '--format', 'json', ...args])
  const report = JSON.parse(stdout) as {
    readonly session: boolean
    readonly rules: readonly { readonly id: string; readonly status: string }[]
  }
  return { code, session: report.session, rules: report.rules.map((it) => [it.id, it.status]), said: `${stdout}${stderr}` }
}

// Mostly pauses: the two beside each other take no longer than one.
test.concurrent('the image of our runtime keeps all rules', async () => {
  const { said, ...report } = await conformance((await images()).agent, '--slow', '{"command": "sleep 60"}')
  expect(report, said).toEqual({ code: 0, session: true, rules: kept })
})

test.concurrent('an image of the example in Python keeps all rules', async () => {
  const { said, ...report } = await conformance(
    words,
    ...['--input', '{"text": "to be or \\"not\\" to be"}', '--slow', '{"text": "a b", "seconds": 60}'],
  )
  expect(report, said).toEqual({ code: 0, session: false, rules: kept })
})

test('an image that does not run says why, and leaves no container', async () => {
  const { code, rules, said } = await conformance(python, '--rule', 'connects', '--', 'python3', '-c', 'raise SystemExit("cannot begin")')
  expect([code, rules]).toEqual([1, [['connects', 'broken']]])
  expect(said).toContain('cannot begin')
  expect((await docker('ps', '--all', '--quiet', '--filter', 'name=t-conformance-')).stdout).toBe('')
})

test('examples/python-agent in a container counts words, asks children and stores a report', async () => {
  await using on = await stack('t-python', {
    'agents.yaml': `${read('examples/python-agent/agents.yaml').replace('python:3.13-slim', python)}  own: { image: "${words}" }\n`,
    'app/agent.py': read('examples/python-agent/app/agent.py'),
    'app/agentctl.py': read('examples/python-agent/app/agentctl.py'),
  })
  const run = await on.submit({ agent: 'words', type: 'task', tasks: [{ text: 'to be or not to be' }, { texts: ['a', 'b c', 'd e f'] }] })
  const { status, jobs } = await on.ended(run)
  expect([status, jobs.map((job) => job.result)]).toEqual([
    'completed',
    [{ words: 6 }, expect.objectContaining({ report: expect.stringMatching(/^sha256:/) })],
  ])
  const own = await on.ended(await on.submit({ agent: 'own', type: 'task', tasks: [{ text: 'a b' }] }))
  expect(own.jobs[0]?.result).toEqual({ words: 2 })
  expect((await on.control.artifacts(run)).map((it) => it.size > 0)).toEqual([true])
})
