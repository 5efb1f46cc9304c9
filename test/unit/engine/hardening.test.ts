import { expect, test } from 'vitest'
import { agentPosture } from '../../../engine/harden.ts'
import { looseningsOf, renderLoosenings } from '../../../engine/loosening.ts'
import type { EngineInfo } from '../../../engine/ports.ts'
import { requirements } from '../../../engine/requirements.ts'
import { SECCOMP, STRICT_SECCOMP } from '../../../engine/seccomp.ts'
import { unfit } from '../../../engine/seccomp-files.ts'
import { agent, project, service, want } from '../../support/project.ts'
import { loadText, project as load } from '../spec/loading.ts'

const LOOSE = `
agents:
  a:
    cap_add: [cap_net_raw, SETUID]
    security_opt: ["no-new-privileges:false", "seccomp=./profile.json", "apparmor=docker-default"]
    read_only: false
    pids_limit: 1000
    ulimits: { nofile: { soft: 1024, hard: 65536 }, core: -1, stack: 8388608 }
    shm_size: 256m
    init: false
    runtime: runsc
    sysctls: { net.ipv4.ip_unprivileged_port_start: 1024 }
    volumes: ["./out:/out", "./in:/in:ro"]
    tmpfs: [/tmp]
  b: { cap_drop: [ALL], read_only: true, init: true, security_opt: [seccomp=strict], ulimits: { nofile: 100 }, shm_size: 1m }
services:
  s: { image: "x:1", cap_add: [SYS_ADMIN], read_only: true }
`

test('what the file loosens, with what it opens; what only tightens is not told', () => {
  expect(renderLoosenings(looseningsOf(load(LOOSE))).join('\n')).toMatchInlineSnapshot(`
    "Loosened by the file:
      agent a  cap_add: NET_RAW, SETUID  (with NET_RAW it can take the addresses of others on its networks)
      agent a  security_opt: no-new-privileges:false  (a program with set-uid or file capabilities gives it more than it has)
      agent a  security_opt: seccomp=/home/user/demo/profile.json  (system calls as this profile says, and not as ours)
      agent a  init: false  (nobody takes in its orphans: they fill its limit of processes)
      agent a  shm_size: 268435456  (a larger /dev/shm than the default of 67108864)
      agent a  runtime: runsc  (its own runtime keeps the boundary, and not the engine's default one)
      agent a  sysctls: net.ipv4.ip_unprivileged_port_start=1024  (a kernel setting of its namespaces)
      agent a  read_only: false  (it can write its root file system, without a limit of size)
      agent a  pids_limit: 1000  (more processes than the default of 256)
      agent a  ulimits.nofile: 65536  (more open files than the default of 4096)
      agent a  ulimits.core: unlimited  (core dumps may hold its secrets)
      agent a  ulimits.stack: 8388608  (another limit than the engine gives)
      agent a  volumes: /home/user/demo/out  (it can write this folder of the host, at /out)
      agent a  tmpfs: /tmp  (it can run what it writes there)
      service s  cap_add: SYS_ADMIN  (capabilities that it does not have by default)"
  `)
  expect(renderLoosenings(looseningsOf(load('agents: { a: {} }')))).toEqual([])
})

test('a key of the file is in the container, and nothing else changes', () => {
  const spec = want(load(LOOSE.replace('"seccomp=./profile.json", ', ''))).containers.find((it) => it.group === 'a')?.spec
  expect(spec).toMatchObject({
    cap_drop: ['ALL'],
    cap_add: ['NET_RAW', 'SETUID'],
    no_new_privileges: false,
    apparmor: 'docker-default',
    read_only: false,
    init: false,
    runtime: 'runsc',
    shm_size: 268_435_456,
    pids_limit: 1000,
    ulimits: [
      { name: 'core', soft: -1, hard: -1 },
      { name: 'nofile', soft: 1024, hard: 65_536 },
      { name: 'stack', soft: 8_388_608, hard: 8_388_608 },
    ],
    sysctls: { 'net.ipv4.ip_unprivileged_port_start': '1024', 'net.ipv4.ping_group_range': '1 0' },
  })
  const ground = { seccomp: 'ours', cpus: 2, profiles: { '/p.json': 'theirs' } }
  expect(agentPosture({ hardening: { seccomp: 'strict' } }, ground).seccomp).toBe(STRICT_SECCOMP)
  expect(agentPosture({ hardening: { seccomp: { path: '/p.json' } } }, ground).seccomp).toBe('theirs')
  expect(() => agentPosture({ hardening: { seccomp: { path: '/q.json' } } }, ground)).toThrow('no seccomp profile /q.json')
  expect(agentPosture({}, ground).masked_paths).toContain('/sys/devices/system/cpu/cpu1/thermal_throttle')
})

test('a file that says nothing about hardening has the hash that it had: no container is made anew', () => {
  const bare = project({ agents: [agent('a')], services: [service('s')] })
  const hash = (cpus?: number): readonly string[] => want(bare, cpus === undefined ? {} : { cpus }).containers.map((it) => it.hash)
  expect(hash()).toEqual(hash())
  expect(JSON.stringify(want(bare).containers[0]?.spec)).not.toMatch(/apparmor|runtime|shm_size/)
})

test('strict allows less than the default in every rule, and refuses what it says', () => {
  const parse = (
    text: string,
  ): { readonly syscalls: readonly { readonly names: readonly string[]; readonly action: string; readonly args?: unknown }[] } =>
    JSON.parse(text)
  const rules = (text: string): ReadonlySet<string> =>
    new Set(parse(text).syscalls.flatMap((rule) => rule.names.map((name) => `${name} ${rule.action} ${JSON.stringify(rule.args ?? null)}`)))
  const [ours, strict] = [rules(SECCOMP), rules(STRICT_SECCOMP)]
  for (const rule of strict) expect(ours.has(rule), rule).toBe(true)
  expect(strict.size).toBeLessThan(ours.size)
  const names = new Set(parse(STRICT_SECCOMP).syscalls.flatMap((rule) => rule.names))
  for (const name of ['memfd_create', 'shmget', 'mq_open', 'execveat', 'mknod', 'personality']) expect(names.has(name), name).toBe(false)
  for (const name of ['read', 'clone', 'execve', 'epoll_wait', 'socket']) expect(names.has(name), name).toBe(true)
})

test('a profile that allows what it does not name is none', () => {
  expect(unfit('{')).toBe('is not JSON')
  expect(unfit('[]')).toBe('has no list "syscalls"')
  expect(unfit('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}')).toContain('that is unconfined')
  expect(unfit('{"syscalls":[]}')).toContain('defaultAction null')
  expect(unfit('{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}')).toBeNull()
})

const INFO: EngineInfo = {
  version: '20.10',
  api_version: '1.41',
  cgroup_version: 1,
  security_options: ['name=seccomp,profile=default'],
  runtimes: ['runc', 'io.containerd.runc.v2'],
  rootless: false,
  endpoint: 'unix:///srv/engine/docker.sock',
  cpus: 2,
  memory: 1,
  data_root: '/data/docker',
  limits: { memory: true, cpus: true, pids: true },
}

test('what the engine does not have is told with place and remedy before anything is made', () => {
  const { project: asked, places } = loadText(
    'agents:\n  a:\n    runtime: runsc\n    security_opt: [apparmor=x]\n    volumes: ["/srv/engine:/e", "/data/docker/volumes:/v", "/srv/other:/o"]\n    pids_limit: 5\n',
  )
  if (asked === null) throw new Error('does not load')
  const told = (info: EngineInfo): readonly string[] =>
    requirements(asked, info, places).map((it) => `${it.place?.line}:${it.place?.column} ${it.code} ${it.message} | ${it.help}`)
  expect(told({ ...INFO, limits: { memory: true, cpus: true, pids: false } }).join('\n')).toMatchInlineSnapshot(`
    "3:14 AG3005 agent "a" asks for the runtime "runsc", which the engine does not have | It has runc, io.containerd.runc.v2. Install runsc on its machine, register it under "runtimes" in /etc/docker/daemon.json and restart the engine; or remove the key.
    4:20 AG3005 agent "a" asks for the AppArmor profile "x", and the kernel of the engine has no AppArmor | Use a machine that has it, or remove the option.
    6:17 AG4006 the engine cannot enforce the pids limit of agent "a" (\`pids_limit\`) | \`agentctl doctor\` says how to switch it on.
    5:15 AG3001 agent "a" must not have "/srv/engine" of the host: it is or contains the engine's socket: whoever has it owns the host | Bind a folder that holds only what the agent needs.
    5:33 AG3001 agent "a" must not have "/data/docker/volumes" of the host: the engine keeps its images, volumes and secrets in /data/docker | Bind a folder that holds only what the agent needs."
  `)
  expect(
    told({ ...INFO, runtimes: ['runc', 'runsc'], security_options: ['name=apparmor'], data_root: '/x', endpoint: 'tcp://1.2.3.4:2376' }),
  ).toEqual([])
})
