/**
 * Egress from inside agents. "Outside" are containers of the test's own, on internal networks that carry public and link-local
 * subnets and which the egress container joins: no packet can leave the machine, not even where a defence fails.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeCertificates } from '../support/certificates.ts'
import { type Stack, stack } from '../support/stack.ts'
import { agentctl, eventually, run, start } from './cli-process.ts'

const HOSTS = ['allowed.test', 'a.b.wild.test', 'wild.test', 'other.test', 'plain.test', 'rebind.test', 'moved.test'] as const
const file = (site: string, rules = ''): string => `
agents:
  web: { replicas: 2, egress: [web], volumes: ["${site}:/site:ro", "${site}/tools:/tools:ro"], mem_limit: 512m, environment: { NODE_EXTRA_CA_CERTS: /site/ca.pem } }
  other: { egress: [few] }
  none: {}
egress:
  few: { allow: [somewhere.test] }
  web:
    allow:
      - allowed.test
      - "*.wild.test"
      - { host: plain.test, scheme: http, methods: [GET] }
      - rebind.test
      - metadata.test
      - { cidr: 11.22.33.0/24, port: 8080, scheme: http }
${rules}
`
let s: Stack
let site: string
/** Networks and containers of the outside, by name. */
let outside: { readonly open: string; readonly metadata: string; readonly website: string; readonly far: string }
let address: { readonly open: string; readonly metadata: string }
const made: string[][] = []

beforeAll(async () => {
  site = makeSite()
  s = await stack('t-egress', { 'agents.yaml': file(site) })
  outside = { open: `${s.name}-open`, metadata: `${s.name}-metadata`, website: `${s.name}-website`, far: `${s.name}-far` }
  address = { open: await network(outside.open, '11.22.33'), metadata: await network(outside.metadata, '169.254.169') }
  const image = `agentctl/agent:${(await import('../../package.json', { with: { type: 'json' } })).default.version}`
  const serve = async (name: string, net: string, aliases: readonly string[]): Promise<void> => {
    made.push(['rm', '-f', name])
    await run('docker', [
      ...['run', '-d', '--name', name, '--network', net, ...aliases.flatMap((alias) => ['--network-alias', alias])],
      ...['--user', '10001', '-v', `${site}:/site:ro`, '--entrypoint', 'node', image, '/site/site.mjs'],
    ])
    await eventually(async () => (await run('docker', ['logs', name])).includes('READY'), `${name} listens`)
  }
  await serve(outside.website, outside.open, HOSTS)
  await serve(outside.far, outside.metadata, ['metadata.test'])
  for (const net of [outside.open, outside.metadata]) await run('docker', ['network', 'connect', net, `${s.name}-agentctl-egress-1`])
}, 400_000)

afterAll(async () => {
  await s?.[Symbol.asyncDispose]()
  for (const command of made.toReversed()) await run('docker', command).catch(() => undefined)
  if (site !== undefined) rmSync(site, { recursive: true, force: true })
}, 120_000)

/** A /28 that nobody has: other suites may have some of the same kind. Gives the address of its first container. */
async function network(name: string, prefix: string): Promise<string> {
  for (let base = 240; base >= 0; base -= 16) {
    try {
      await run('docker', ['network', 'create', '--internal', '--subnet', `${prefix}.${base}/28`, name])
      made.push(['network', 'rm', name])
      return `${prefix}.${base + 2}`
    } catch (error) {
      if (!/overlap/i.test(String(error))) throw error
    }
  }
  throw new Error(`no free /28 in ${prefix}.0/24`)
}

/** What the outside serves and agents trust; and clients that the agent image does not have, from this machine. */
function makeSite(): string {
  const folder = mkdtempSync(join(tmpdir(), 't-egress-site-'))
  const tls = makeCertificates(HOSTS.map((host) => `DNS:${host}`))
  writeFileSync(join(folder, 'ca.pem'), tls.ca)
  writeFileSync(join(folder, 'cert.pem'), tls.cert)
  writeFileSync(join(folder, 'key.pem'), tls.key)
  cpSync(join(import.meta.dirname, '../support/egress-site.mjs'), join(folder, 'site.mjs'))
  const git = (...args: readonly string[]): void =>
    void execFileSync('git', ['-C', join(folder, 'work'), '-c', 'user.name=t', '-c', 'user.email=t@t.test', ...args], { stdio: 'pipe' })
  mkdirSync(join(folder, 'work'))
  git('init', '-q', '-b', 'main')
  git('commit', '-q', '--allow-empty', '-m', 'first')
  execFileSync('git', ['clone', '-q', '--bare', join(folder, 'work'), join(folder, 'repo.git')], { stdio: 'pipe' })
  execFileSync('git', ['-C', join(folder, 'repo.git'), 'update-server-info'])
  const tools = join(folder, 'tools')
  mkdirSync(tools)
  const python = '/usr/lib/python3.11'
  if (existsSync(python)) {
    const skip = /__pycache__|\/test\/|\/config-|\/ensurepip|\/idlelib/
    cpSync(python, join(tools, 'lib/python3.11'), { recursive: true, dereference: true, filter: (path) => !skip.test(path) })
    cpSync('/usr/bin/python3.11', join(tools, 'bin/python3'))
    const wheel = '/usr/share/python-wheels/pip-23.0.1-py3-none-any.whl'
    if (existsSync(wheel)) cpSync(wheel, join(tools, 'pip.whl'))
  }
  const npm = join(execFileSync('npm', ['root', '-g'], { encoding: 'utf8' }).trim(), 'npm')
  if (existsSync(npm)) cpSync(npm, join(tools, 'npm'), { recursive: true, dereference: true })
  execFileSync('chmod', ['-R', 'a+rX', folder])
  chmodSync(folder, 0o755)
  return folder
}

const seen = async (container: string): Promise<readonly string[]> =>
  (await run('docker', ['logs', container])).split('\n').filter((line) => line.startsWith('SEEN'))
const sh = async (command: string, container = 'web-1'): Promise<{ code: number; text: string }> => {
  const { exit_code, stdout, stderr } = await s.runtime.exec(`${s.name}-${container}`, ['sh', '-c', command], { timeout_ms: 60_000 })
  return { code: exit_code, text: `${stdout.toString('utf8')}${stderr.toString('utf8')}`.trim() }
}
const curl = (args: string, container?: string): Promise<{ code: number; text: string }> =>
  sh(`curl -sS --max-time 20 --cacert /site/ca.pem ${args}`, container)
const audit = async (...args: readonly string[]): Promise<readonly Record<string, unknown>[]> => {
  const { code, stdout, stderr } = await agentctl(['-p', s.name, 'egress', 'log', '--format', 'json', ...args])
  if (code !== 0) throw new Error(stderr)
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

describe('clients work as they are', () => {
  test('curl, over TLS and in the clear', async () => {
    expect(await curl('https://allowed.test/x')).toEqual({ code: 0, text: 'site /x' })
    expect(await curl('https://a.b.wild.test/y')).toEqual({ code: 0, text: 'site /y' })
    expect(await curl('http://plain.test/z')).toEqual({ code: 0, text: 'site /z' })
    expect(await curl(`http://${address.open}:8080/by-address`)).toEqual({ code: 0, text: 'site /by-address' })
    expect((await audit('web', '--tail', '1')).at(0)).toMatchObject({
      agent: 'web',
      replica: 1,
      host: address.open,
      port: 8080,
      scheme: 'http',
      method: 'GET',
      verdict: 'allow',
      rule: expect.stringMatching(/^agents\.yaml:\d+ egress\.web$/),
    })
  })
  test('git', async () => {
    expect(
      (
        await sh(
          'cd /workspace && rm -rf r && GIT_SSL_CAINFO=/site/ca.pem git clone -q https://allowed.test/repo.git r && git -C r log --format=%s',
        )
      ).text,
    ).toBe('first')
  })
  test("Node's fetch", async () => {
    expect(await s.node('web-1', `fetch('https://allowed.test/node').then(r=>r.text()).then(t=>process.stdout.write(t))`)).toBe(
      'site /node',
    )
    expect(await s.node('web-1', `fetch('http://plain.test/node').then(r=>r.text()).then(t=>process.stdout.write(t))`)).toBe('site /node')
  })
  test('a command in a task', async () => {
    const input = { command: 'curl -sS --cacert /site/ca.pem https://allowed.test/task' }
    const ended = await s.ended(await s.submit({ agent: 'web', type: 'task', tasks: [input] }))
    expect(JSON.stringify(ended)).toContain('site /task')
  })
  test('Python and pip', async (context) => {
    const python = 'PYTHONHOME=/tools SSL_CERT_FILE=/site/ca.pem /tools/bin/python3'
    if ((await sh(`${python} --version`)).code !== 0) return context.skip('no Python of this machine runs in the agent image')
    expect(
      await sh(`${python} -c "import urllib.request as u; print(u.urlopen('https://allowed.test/py').read().decode().strip())"`),
    ).toEqual({ code: 0, text: 'site /py' })
    const denied = await sh(`${python} -c "import urllib.request as u; u.urlopen('https://other.test/')"`)
    expect(denied.text).toMatch(/403 denied by agents\.yaml:\d+ egress\.web; add "other\.test" to egress\.web\.allow/)
    const pip = await sh(
      `cd /workspace && PYTHONPATH=/tools/pip.whl ${python} -m pip download --retries 0 --no-deps --no-cache-dir --cert /site/ca.pem --index-url https://allowed.test/simple/ left 2>&1`,
    )
    expect(pip.text).toContain('Downloading https://allowed.test/left-1.2.3-py3-none-any.whl')
  })
  test('npm', async (context) => {
    if (!existsSync(join(site, 'tools/npm'))) return context.skip('this machine has no npm in its global folder')
    expect(
      (await sh('HOME=/tmp node /tools/npm/bin/npm-cli.js view left version --registry https://allowed.test/ --cafile /site/ca.pem 2>&1'))
        .text,
    ).toBe('1.2.3')
  })
})

describe('what is denied', () => {
  test.each([
    ['another host', 'https://other.test/', /403/],
    ['the apex of a wildcard', 'https://wild.test/', /403/],
    ['another port of an allowed host', 'https://allowed.test:8443/', /403/],
    ['the address of an allowed host', 'https://11.22.33.242/', /403/],
    ['a metadata address', 'http://169.254.169.254/latest/meta-data/', /169\.254\.169\.254" is a link-local address/],
    ['loopback of egress', '--noproxy x.test http://127.1:4318/healthz', /is a loopback address/],
    ['an allowed name that leads to a metadata address', 'https://metadata.test/', /403/],
  ])('%s', async (_what, url, text) => {
    const before = [await seen(outside.website), await seen(outside.far)]
    expect((await curl(`-v ${url} 2>&1 | grep -E '403|denied' `)).text).toMatch(text)
    expect([await seen(outside.website), await seen(outside.far)]).toEqual(before)
    expect((await audit('web', '--tail', '1')).at(0)).toMatchObject({ verdict: 'deny' })
  })

  test('the text names the rule and the remedy', async () => {
    expect((await curl('http://other.test/')).text).toMatch(
      /^denied by agents\.yaml:\d+ egress\.web; add \{host: other\.test, scheme: http\} to egress\.web\.allow$/,
    )
    expect((await curl('-X POST http://plain.test/')).text).toMatch(/it allows GET of plain\.test alone$/)
    expect((await curl('-v https://other.test/')).text).toMatch(
      /HTTP\/1\.1 403 denied by agents\.yaml:\d+ egress\.web; add "other\.test" to egress\.web\.allow/,
    )
    expect((await curl('-v https://metadata.test/')).text).toMatch(
      /403 denied: "metadata\.test" resolves to a link-local address, which egress never dials/,
    )
  })

  test('a name that is rebound to another address leads nowhere', async () => {
    expect((await curl('https://rebind.test/')).text).toBe('site /')
    const before = await seen(outside.far)
    await run('docker', ['network', 'disconnect', outside.open, outside.website])
    await run('docker', [
      'network',
      'connect',
      ...HOSTS.filter((it) => it !== 'rebind.test').flatMap((it) => ['--alias', it]),
      outside.open,
      outside.website,
    ])
    await run('docker', ['network', 'disconnect', outside.metadata, outside.far])
    await run('docker', [
      'network',
      'connect',
      ...['metadata.test', 'rebind.test'].flatMap((it) => ['--alias', it]),
      outside.metadata,
      outside.far,
    ])
    await eventually(
      async () => /resolves to a link-local address/.test((await curl('-v https://rebind.test/')).text),
      'the new address is seen and refused',
    )
    expect(await seen(outside.far)).toEqual(before)
  })

  test('TLS for another name in the tunnel of an allowed host is closed', async () => {
    const before = await seen(outside.website)
    const result = await curl('--connect-to other.test:443:allowed.test:443 https://other.test/fronted')
    expect(result.code).not.toBe(0)
    expect(await seen(outside.website)).toEqual(before)
    expect((await audit('web', '--tail', '1')).at(0)).toMatchObject({ host: 'allowed.test', verdict: 'deny', reason: 'name_mismatch' })
  })

  test('without the proxy there is no way, and no other part of ours on the way', async () => {
    expect((await curl(`--noproxy '*' --connect-timeout 5 http://${address.open}:8080/`)).code).not.toBe(0)
    expect((await sh(`env -u https_proxy -u HTTPS_PROXY curl -sS --connect-timeout 5 https://allowed.test/`)).code).not.toBe(0)
    // Telemetry is the gateway's: an agent could tell spans of others there.
    expect((await curl("--noproxy '*' --connect-timeout 5 http://egress:4318/healthz")).code).not.toBe(0)
  })
})

describe('who may', () => {
  test('another agent has its own rules, and one without rules no proxy', async () => {
    expect((await curl('http://plain.test/', 'other-1')).text).toMatch(/^denied by agents\.yaml:\d+ egress\.few/)
    expect((await sh('env | grep -ci proxy; grep -c egress /etc/hosts', 'none-1')).text).toBe('0\n0')
    const networks = (await s.runtime.containers(s.name)).find((it) => it.name === `${s.name}-agentctl-egress-1`)?.networks ?? {}
    expect(Object.keys(networks)).not.toContain(`${s.name}_agent-none`)
    expect(Object.keys(networks)).toEqual(expect.arrayContaining([`${s.name}_agent-web`, `${s.name}_agent-other`]))
    expect(new Set((await audit('other')).map((it) => it['agent']))).toEqual(new Set(['other']))
  })
  test('a one-off container of the agent is known as one', async () => {
    const { stdout } = await agentctl([
      '-p',
      s.name,
      'run',
      '--agent',
      'web',
      '--',
      'curl',
      '-sS',
      '--cacert',
      '/site/ca.pem',
      'https://allowed.test/one-off',
    ])
    expect(stdout).toBe('site /one-off\n')
    expect((await audit('--tail', '1')).at(0)).toMatchObject({ agent: 'web', replica: 0, verdict: 'allow' })
  })
})

describe('a change of the rules', () => {
  test('is followed without a restart; what it no longer allows is closed', async () => {
    const ids = async (): Promise<readonly string[]> => (await s.runtime.containers(s.name)).map(({ id }) => id).sort()
    const before = await ids()
    const open = sh(
      `curl -sS --max-time 60 -N -p -x http://egress:3128 -H 'Connection: Upgrade' -H 'Upgrade: websocket' --cacert /site/ca.pem https://allowed.test/socket; echo "ended $?"`,
    )
    await eventually(async () => (await sh('cat /proc/net/tcp')).text.includes(':0C38 01'), 'the tunnel is open')
    const allow = '      - allowed.test\n'
    await s.up({ 'agents.yaml': file(site).replace(allow, '') })
    expect((await open).text).toMatch(/ended (?!0)\d+/)
    expect((await curl('https://allowed.test/')).code).not.toBe(0)
    await eventually(async () => (await curl('https://a.b.wild.test/')).text === 'site /', 'what is still allowed works')
    await s.up({ 'agents.yaml': file(site) })
    await eventually(async () => (await curl('https://allowed.test/')).code === 0, 'the new rule is followed')
    expect(await ids()).toEqual(before)
    expect((await audit('web')).some((it) => it['reason'] === 'narrowed' && it['host'] === 'allowed.test')).toBe(true)
  })
  test('`egress log --follow` goes on with what comes', async () => {
    const following = start(['-p', s.name, 'egress', 'log', 'web', '--tail', '1', '--follow'])
    await following.shows(/web-\d+ {2}/)
    await curl('http://followed.test/')
    await following.shows(/web-1 {2}deny {3}GET http:\/\/followed\.test:80 {2}no_rule/)
    following.signal('SIGINT')
    expect((await following.result).code).toBe(130)
    expect(following.stdout().match(/followed\.test/g)).toHaveLength(1)
  })
  test('`egress check` says what the proxy says', async () => {
    const check = async (url: string): Promise<readonly [number | null, string]> => {
      const { code, stdout } = await agentctl(['-p', s.name, 'egress', 'check', 'web', url, '--format', 'json'])
      return [code, (JSON.parse(stdout) as { verdict: string }).verdict]
    }
    expect(await check('https://allowed.test')).toEqual([0, 'allow'])
    expect(await check('https://other.test')).toEqual([1, 'deny'])
    expect(await check('http://169.254.169.254/')).toEqual([1, 'deny'])
  })
  test('egress killed: nothing goes out meanwhile, and all is as before', async () => {
    await s.runtime.remove(`${s.name}-agentctl-egress-1`)
    // It comes back so soon that a client may wait for it; what it does not come back to is the test's own network of the outside.
    const before = await seen(outside.website)
    await curl('--connect-timeout 3 http://plain.test/')
    expect(await seen(outside.website)).toEqual(before)
    await eventually(
      async () => (await curl('http://other.test/')).text.startsWith('denied by'),
      'the controller has brought it back',
      40_000,
    )
  })
})
