import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { FakeMachine } from '../support/fake-machine.ts'

const INSTALL = 'apt-get install -q -y --no-install-recommends docker.io iptables ca-certificates debootstrap'

test('an engine that answers is left alone', async () => {
  using machine = await new FakeMachine().apt().engine().running()
  const { code, output, calls } = await machine.setup()
  expect(output).toBe('setup: engine: unix:///var/run/docker.sock answers\nsetup: node_modules: up to date\nsetup: node: v24\n')
  expect({ code, calls }).toEqual({ code: 0, calls: [] })
})

test('a rootless engine counts, and so does the one of DOCKER_HOST', async () => {
  using machine = await new FakeMachine({ uid: 1000 }).running()
  const DOCKER_HOST = `unix://${machine.dir}/var/run/docker.sock`
  expect((await machine.setup([], { env: { DOCKER_HOST } })).code).toBe(0)
  const moved = await machine.setup([], { env: { AGENTCTL_SETUP_ROOT: '/nonexistent', XDG_RUNTIME_DIR: `${machine.dir}/var/run` } })
  expect(moved.output).toContain('engine: unix:///var/run/docker.sock answers')
})

test('root without systemd: a silent engine is started, in a session of its own, and what it left behind goes', async () => {
  using machine = new FakeMachine().engine()
  machine.write('var/run/docker.pid', '999999999').write('var/run/docker/containerd/containerd.pid', '999999999')
  machine.write('var/run/docker/containerd/containerd.sock', '').stub('debootstrap')
  const { code, output } = await machine.setup()
  expect(output).toContain(
    'setup: engine: started dockerd (log: /var/log/agentctl-dockerd.log). Undo with: kill $(cat /var/run/docker.pid)',
  )
  expect(output).toContain('setup: engine: unix:///var/run/docker.sock answers')
  expect(code).toBe(0)
  expect(
    ['var/run/docker.pid', 'var/run/docker/containerd/containerd.pid', 'var/run/docker/containerd/containerd.sock'].filter((file) =>
      machine.has(file),
    ),
  ).toEqual([])
})

test('the state of a containerd that lives is kept', async () => {
  using machine = new FakeMachine().engine().stub('debootstrap')
  machine.write('var/run/docker/containerd/containerd.pid', '4242').write('var/run/docker/containerd/containerd.sock', '')
  const { rmSync } = await import('node:fs')
  rmSync(`${machine.dir}/proc`)
  machine.write('proc/4242/comm', 'containerd\n')
  expect((await machine.setup()).code).toBe(0)
  expect(machine.has('var/run/docker/containerd/containerd.sock')).toBe(true)
})

test('an engine that dies at its start is shown with the end of its log', async () => {
  using machine = new FakeMachine().stub('debootstrap').stub('dockerd', 'echo "iptables: no such chain" >&2; exit 1')
  const { code, output } = await machine.setup()
  expect(output).toMatch(/iptables: no such chain\nsetup: the engine ended at once/)
  expect(code).toBe(1)
})

test.each([
  ['root with systemd', { uid: 0 }, 'run/systemd/system/x', 'systemctl start docker'],
  ['a user with systemd', { uid: 1000 }, 'run/systemd/system/x', 'sudo systemctl start docker'],
  ['a user without systemd', { uid: 1000 }, 'x', 'sudo service docker start'],
  ['a rootless engine', { uid: 1000 }, 'home/.config/systemd/user/docker.service', 'systemctl --user start docker'],
  ['a Mac with a desktop', { uid: 501, system: 'Darwin' }, 'Applications/Docker.app/x', 'open -a Docker'],
])('%s: a silent engine is not touched; the command is printed', async (_name, facts, file, command) => {
  using machine = new FakeMachine(facts).apt().engine().write(file, '')
  const { code, output, calls } = await machine.setup()
  expect(output).toBe(`setup: a container engine is installed but does not answer; nothing was changed. Start it with:\n  ${command}\n`)
  expect({ code, calls }).toEqual({ code: 1, calls: [] })
})

test('Podman counts as installed', async () => {
  using machine = new FakeMachine().apt().stub('podman')
  const { code, output, calls } = await machine.setup()
  expect(output).toContain('  podman system service --time=0 unix:///var/run/docker.sock &')
  expect({ code, calls }).toEqual({ code: 1, calls: [] })
})

test('no engine, root and apt, no terminal: installed, started, and how to undo it is said; a docker client alone is no engine', async () => {
  using machine = new FakeMachine().apt().stub('docker', 'exit 1')
  const { code, output, calls } = await machine.setup()
  expect(calls).toEqual(['apt-get update -q', INSTALL])
  expect(output).toContain(
    'setup: installed: docker.io iptables ca-certificates debootstrap. Undo with: apt-get purge -y docker.io iptables',
  )
  expect(output).toContain('setup: engine: unix:///var/run/docker.sock answers')
  expect(code).toBe(0)
})

test('what was installed before is neither installed again nor named for removal', async () => {
  using machine = new FakeMachine().apt().stub('dpkg-query', 'for last; do :; done; [ "$last" = iptables ] && echo "ii "')
  const { output } = await machine.setup()
  expect(output).toContain(
    'setup: installed: docker.io ca-certificates debootstrap. Undo with: apt-get purge -y docker.io ca-certificates debootstrap &&',
  )
})

test('no engine, root and apt, on a terminal: asked first', async () => {
  using refused = new FakeMachine().apt()
  const no = await refused.setup([], { typed: 'n\n' })
  expect(no.output).toContain('install the packages docker.io iptables ca-certificates debootstrap with apt-get? [y/N]')
  expect(no.output).toContain('apt-get update && apt-get install -y --no-install-recommends docker.io iptables ca-certificates debootstrap')
  expect({ code: no.code, calls: no.calls }).toEqual({ code: 1, calls: [] })

  using agreed = new FakeMachine().apt()
  const yes = await agreed.setup([], { typed: 'y\n' })
  expect({ code: yes.code, calls: yes.calls }).toEqual({ code: 0, calls: ['apt-get update -q', INSTALL] })

  using unasked = new FakeMachine().apt()
  const flag = await unasked.setup(['--yes'], { typed: '' })
  expect(flag.output).not.toContain('[y/N]')
  expect(flag.code).toBe(0)
})

test('no engine and no root, or no apt: the command is printed and nothing changed', async () => {
  using user = new FakeMachine({ uid: 1000 }).apt()
  const first = await user.setup(['--yes'])
  expect(first.output).toContain(
    '  sudo apt-get update && sudo apt-get install -y --no-install-recommends docker.io iptables ca-certificates debootstrap\n',
  )
  expect({ code: first.code, calls: first.calls }).toEqual({ code: 1, calls: [] })

  using fedora = new FakeMachine().stub('dnf')
  const second = await fedora.setup()
  expect(second.output).toContain('  dnf install -y moby-engine && systemctl enable --now docker\n')
  expect({ code: second.code, calls: second.calls }).toEqual({ code: 1, calls: [] })
})

test('an engine that the user chose is never replaced by one of ours', async () => {
  using machine = new FakeMachine().apt()
  const { code, output, calls } = await machine.setup([], { env: { DOCKER_HOST: 'tcp://127.0.0.1:1' } })
  expect(output).toContain('the engine that DOCKER_HOST or the docker context names does not answer (tcp://127.0.0.1:1: ECONNREFUSED)')
  expect({ code, calls }).toEqual({ code: 1, calls: [] })
})

test('debootstrap is installed when the engine has no Debian image, and not required where it cannot be', async () => {
  using machine = await new FakeMachine().apt().running([])
  const asRoot = await machine.setup()
  expect(asRoot.calls).toEqual(['apt-get update -q', 'apt-get install -q -y --no-install-recommends debootstrap'])
  expect(asRoot.code).toBe(0)

  using laptop = await new FakeMachine({ uid: 1000 }).running([])
  const asUser = await laptop.setup()
  expect(asUser.output).toContain('the first `up` will pull debian:bookworm-slim')
  expect(asUser.code).toBe(0)
})

test('--tests: the programs that the examples need are installed as root, named to others, and left alone where they are', async () => {
  using machine = await new FakeMachine().apt().stub('debootstrap').stub('curl').running()
  const asRoot = await machine.setup(['--tests'])
  expect(asRoot.calls).toEqual(['apt-get update -q', 'apt-get install -q -y --no-install-recommends python3 openssl'])
  expect(asRoot.code).toBe(0)
  expect((await machine.setup()).calls).toEqual(asRoot.calls)

  using laptop = await new FakeMachine({ uid: 1000 }).running()
  const asUser = await laptop.setup(['--tests'])
  expect(asUser.output).toContain('apt-get install -y --no-install-recommends python3 curl openssl')
  expect({ code: asUser.code, calls: asUser.calls }).toEqual({ code: 1, calls: [] })

  using ready = await new FakeMachine().apt().stub('python3').stub('curl').stub('openssl').running()
  expect((await ready.setup(['--tests'])).calls).toEqual([])
})

test('npm ci runs when node_modules is missing or not what the lockfile says, and only then', async () => {
  using machine = await new FakeMachine().running()
  machine.write('checkout/package-lock.json', JSON.stringify({ packages: { '': {}, 'node_modules/a': { version: '1.0.0' } } }))
  const first = await machine.setup()
  expect(first.calls).toEqual(['npm ci --ignore-scripts --include=dev --include=optional --no-audit --no-fund --loglevel=error'])
  machine.write('checkout/node_modules/a/package.json', '{}')
  expect((await machine.setup()).calls).toHaveLength(1)
  machine.write('checkout/package-lock.json', JSON.stringify({ packages: { '': {}, 'node_modules/a': { version: '1.0.1' } } }))
  expect((await machine.setup()).calls).toHaveLength(2)
})

test('the proxy reaches apt under the name that apt reads', async () => {
  using machine = new FakeMachine().apt().stub('apt-get', 'echo "proxy $http_proxy $https_proxy"; exit 1')
  const { output } = await machine.setup([], { env: { HTTP_PROXY: 'http://proxy:3128', HTTPS_PROXY: 'http://proxy:3129' } })
  expect(output).toContain('proxy http://proxy:3128 http://proxy:3129')
})

test('--check prints what would happen and changes nothing', async () => {
  using bare = new FakeMachine().apt().write('checkout/package-lock.json', '{"packages":{"node_modules/a":{}}}')
  const first = await bare.setup(['--check'])
  expect(first.output).toBe(
    [
      'setup: would install (a container engine): docker.io iptables ca-certificates debootstrap',
      'setup: would start dockerd',
      'setup: would run npm ci',
      '',
    ].join('\n'),
  )
  expect({ code: first.code, calls: first.calls }).toEqual({ code: 0, calls: [] })

  using silent = new FakeMachine().engine().stub('debootstrap')
  const second = await silent.setup(['--check'])
  expect(second.output).toContain('would start dockerd (log: /var/log/agentctl-dockerd.log)')
  expect(silent.has('var/run/docker.sock')).toBe(false)
})

test('an unknown argument is bad usage', async () => {
  using machine = new FakeMachine()
  expect(await machine.setup(['--force'])).toMatchObject({ code: 2, calls: [] })
})

test('set-up is plain sh', () => {
  const shell = existsSync('/bin/dash') ? '/bin/dash' : '/bin/sh'
  execFileSync(shell, ['-n', '.ci/setup'])
})
