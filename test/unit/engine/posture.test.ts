/** Pure: an inspect made from the body that we send is as declared; each change of it is one difference with a name. */
import { expect, test } from 'vitest'
import { renderAudit } from '../../../engine/cli/views/audit.ts'
import { type DesiredContainer, desired } from '../../../engine/desired.ts'
import { looseningsOf } from '../../../engine/loosening.ts'
import type { ContainerSpec, EngineInfo } from '../../../engine/ports.ts'
import { auditReport, type Looked } from '../../../engine/posture/audit.ts'
import { compare, CONTROLS, renderDifference } from '../../../engine/posture/controls.ts'
import { capabilitiesOf, compareProbe, parseProbe, probeCommand } from '../../../engine/posture/probe.ts'
import { containerBody } from '../../../engine/runtimes/docker/create-body.ts'
import { SECCOMP } from '../../../engine/seccomp.ts'
import { record } from '../../support/project.ts'
import { project as load } from '../spec/loading.ts'

// oxlint-disable-next-line typescript/no-explicit-any
type Any = any

/** As Docker 20.10 answers for a container of that body. */
function inspectOf(spec: ContainerSpec): Any {
  const { HostConfig, ...config } = structuredClone(containerBody(spec)) as Any
  return {
    Id: 'id',
    Image: 'sha256:x',
    AppArmorProfile: spec.apparmor ?? '',
    State: { Running: true, StartedAt: 'now' },
    Config: { ...config, Env: [...config.Env, 'PATH=/bin'], Volumes: { '/cache': {} } },
    HostConfig: {
      ...HostConfig,
      Runtime: spec.runtime ?? 'runc',
      PidMode: '',
      UTSMode: '',
      UsernsMode: '',
      CgroupParent: '',
      OomKillDisable: false,
    },
    Mounts: [
      ...HostConfig.Mounts.map((it: Any) => ({
        Type: it.Type,
        ...(it.Type === 'volume' ? { Name: it.Source, Source: `/data/${it.Source}` } : { Source: it.Source }),
        Destination: it.Target,
        RW: !it.ReadOnly,
        Propagation: it.BindOptions?.Propagation ?? '',
      })),
      { Type: 'volume', Name: 'a'.repeat(64), Source: '/x', Destination: '/cache', RW: true },
    ],
    NetworkSettings: { Networks: Object.fromEntries(spec.endpoints.map((it) => [it.network, { IPAddress: it.address ?? '172.17.0.5' }])) },
  }
}
const effective = (inspect: Any): Any => ({ inspect, imageEnvironment: ['PATH=/bin'] })

const FILE = `
agents:
  coder: { replicas: 2, uses: [store], volumes: ["./in:/in:ro", "data:/data"], environment: { A: x } }
  loose: { cap_add: [NET_RAW], security_opt: [seccomp=strict, "no-new-privileges:false"], read_only: false, runtime: runsc, shm_size: 128m }
services:
  store: { image: "s:1", ports: ["127.0.0.1:80:8000"] }
volumes: { data: {} }
`
const all = desired(record(load(FILE)), SECCOMP).containers
const named = (name: string): ContainerSpec => (all.find((it) => it.spec.name.includes(name)) as DesiredContainer).spec

test('every container of ours, as the engine would tell of it, is as it was declared', () => {
  for (const { spec } of all) expect(compare(spec, effective(inspectOf(spec))), spec.name).toEqual([])
})

/** [what is changed, the difference]. */
const CHANGES: readonly (readonly [change: (it: Any) => void, told: string])[] = [
  [(it) => (it.Config.User = '0:0'), 'user: declared 10001:10001, is 0:0'],
  [(it) => (it.HostConfig.GroupAdd = ['docker']), 'groups: declared none, is docker'],
  [(it) => (it.HostConfig.CapAdd = ['CAP_SYS_ADMIN']), 'capabilities: declared drop ALL; add none, is drop ALL; add SYS_ADMIN'],
  [(it) => (it.HostConfig.CapDrop = null), 'capabilities: declared drop ALL; add none, is drop none; add none'],
  [(it) => (it.HostConfig.Privileged = true), 'privileged: declared off, is on'],
  [(it) => it.HostConfig.SecurityOpt.shift(), 'no-new-privileges: declared on, is off'],
  [(it) => (it.HostConfig.SecurityOpt[1] = 'seccomp=unconfined'), expect.stringMatching(/^seccomp: declared .*, is unconfined$/) as never],
  [(it) => (it.AppArmorProfile = 'unconfined'), "apparmor: declared the engine's own, is unconfined"],
  [(it) => (it.HostConfig.ReadonlyRootfs = false), 'read-only-root: declared on, is off'],
  [(it) => it.HostConfig.MaskedPaths.splice(3, 1), 'masked-paths: declared /proc/kcore, is nothing else'],
  [(it) => (it.HostConfig.ReadonlyPaths = []), expect.stringMatching(/^read-only-paths: declared \/proc\/bus.*, is none$/) as never],
  [(it) => (it.HostConfig.Memory = 0), 'memory: declared 536870912, no swap, is 0, and 536870912 of swap'],
  [(it) => (it.HostConfig.MemorySwap = 1_073_741_824), 'memory: declared 536870912, no swap, is 536870912, and 536870912 of swap'],
  [(it) => (it.HostConfig.NanoCpus = 0), 'cpus: declared 1, is 0'],
  [(it) => (it.HostConfig.PidsLimit = null), 'pids: declared 256, is 0'],
  [(it) => it.HostConfig.Ulimits.pop(), 'ulimits: declared core 0:0, nofile 4096:4096, is core 0:0'],
  [(it) => (it.HostConfig.OomScoreAdj = 0), 'oom: declared score 500, is score 0'],
  [(it) => (it.HostConfig.OomKillDisable = true), 'oom: declared score 500, is score 500, never killed'],
  [(it) => (it.HostConfig.Init = null), 'init: declared on, is off'],
  [(it) => (it.HostConfig.ShmSize = 1e9), 'shm: declared 67108864, is 1000000000'],
  [(it) => (it.HostConfig.PidMode = 'host'), expect.stringContaining('is ipc own, pid host, uts own, user own, cgroup own') as never],
  [(it) => (it.HostConfig.CgroupnsMode = 'host'), expect.stringContaining('is ipc own, pid own, uts own, user own, cgroup host') as never],
  [(it) => (it.HostConfig.CgroupParent = '/other'), 'cgroup: declared own, is /other'],
  [(it) => (it.HostConfig.Devices = [{ PathOnHost: '/dev/kvm' }]), 'devices: declared none, is /dev/kvm'],
  [(it) => (it.HostConfig.DeviceRequests = [{ Driver: 'nvidia' }]), 'devices: declared none, is request nvidia'],
  [
    (it) => (it.HostConfig.Sysctls['net.ipv4.ip_forward'] = '1'),
    expect.stringMatching(/^sysctls: .*is net\.ipv4\.ip_forward=1, /) as never,
  ],
  [
    (it) => it.Mounts.push({ Type: 'bind', Source: '/etc', Destination: '/host', RW: true }),
    'mounts: declared nothing else, is bind /etc at /host',
  ],
  [
    (it) => (it.Mounts[0].RW = true),
    expect.stringMatching(/^mounts: declared bind \S+ at \/in \(read-only\), is bind \S+ at \/in$/) as never,
  ],
  [(it) => (it.Mounts[0].Propagation = 'rshared'), 'propagation: declared none, is /in'],
  [(it) => (it.HostConfig.Tmpfs['/x'] = 'rw,exec'), expect.stringMatching(/^tmpfs: .*, \/x unlimited exec$/) as never],
  [(it) => (it.HostConfig.VolumesFrom = ['other']), 'others: declared none, is other'],
  [(it) => (it.NetworkSettings.Networks.bridge = { IPAddress: '172.17.0.2' }), expect.stringMatching(/^networks: .*is bridge, /) as never],
  [(it) => (it.HostConfig.Dns = ['8.8.8.8']), expect.stringMatching(/^names: declared 127\.0\.0\.1; .*, is 8\.8\.8\.8; /) as never],
  [(it) => (it.HostConfig.PortBindings = { '7/tcp': [{ HostIp: '', HostPort: '7' }] }), 'ports: declared none, is :7:7/tcp'],
  [(it) => it.Config.Env.push('LD_PRELOAD=/tmp/x'), 'environment: declared nothing else, is LD_PRELOAD (not declared)'],
  [
    (it) => (it.Config.Env = it.Config.Env.map((e: string) => (e === 'A=x' ? 'A=secret' : e))),
    expect.stringContaining(', is A (another value), ') as never,
  ],
  [(it) => (it.Config.Image = 'evil'), expect.stringMatching(/^program: .* is evil; /) as never],
  [(it) => (it.HostConfig.RestartPolicy.Name = 'always'), 'restart: declared no, is always'],
  [(it) => (it.HostConfig.LogConfig = { Type: 'json-file', Config: {} }), 'logs: declared json-file, 3 of 10m, is json-file, ? of ?'],
]

test.each(CHANGES.map(([change, told], index) => [index, change, told] as const))('change %i has a name', (_, change, told) => {
  const spec = named('coder-1')
  const inspect = inspectOf(spec)
  change(inspect)
  expect(compare(spec, effective(inspect)).map(renderDifference)).toEqual([told])
})

test('every control is changed by one of these, but what only the file may change', () => {
  const changed = new Set(
    CHANGES.flatMap(([change]) => {
      const inspect = inspectOf(named('coder-1'))
      change(inspect)
      return compare(named('coder-1'), effective(inspect)).map((it) => it.control)
    }),
  )
  expect(CONTROLS.map((it) => it.id).filter((id) => !changed.has(id))).toEqual(['runtime'])
})

const INFO: EngineInfo = {
  version: '20.10.24',
  api_version: '1.41',
  cgroup_version: 1,
  security_options: ['name=seccomp,profile=default'],
  runtimes: [],
  rootless: false,
  endpoint: '',
  cpus: 2,
  memory: 1,
  data_root: '',
}

test('the audit of a project: its tables, what is loosened and why, what is not as declared', () => {
  const looked = all
    .filter(({ spec }) => ['agent', 'service', 'controller'].includes(spec.kind))
    .map(({ spec }): Looked => ({ spec, effective: effective(inspectOf(spec)), probe: spec.kind === 'agent' ? [] : null }))
  const forged = inspectOf(named('coder-2'))
  forged.HostConfig.CapAdd = ['NET_ADMIN']
  forged.HostConfig.NanoCpus = 2e9
  const changed = looked.map((it) =>
    it.spec.name.endsWith('coder-2')
      ? { ...it, effective: effective(forged), probe: [{ control: 'capabilities', declared: 'none', effective: 'NET_ADMIN' }] }
      : it,
  )
  const loosenings = looseningsOf(load(FILE))
  const report = auditReport('demo', INFO, changed, loosenings)
  expect(report.ok).toBe(false)
  expect(auditReport('demo', INFO, looked, loosenings)).toMatchObject({ ok: true, findings: [] })
  expect(renderAudit(report, (_, text) => text)).toMatchInlineSnapshot(`
    "agentctl-controller: 31 controls as they should be
       CONTROL  CIS            PSS                                  DECLARED
    !  user     4.1 5.24       restricted:running-as-non-root-user  0:0  (uid 0 without any capability: it opens the engine's socket as its owner)
    !  mounts   5.6 5.20 5.32  restricted:volume-types              bind /var/run/docker.sock at /var/run/docker.sock (read-only), volume d…  (it alone has the engine's socket, and no network)

    store: 30 controls as they should be
       CONTROL                     CIS       PSS                                  DECLARED
    !  user                        4.1 5.24  restricted:running-as-non-root-user  the image's  (what Compose gives a service)
    !  capabilities                5.4       restricted:capabilities              drop none; add none  (what Compose gives a service)
    !  read-only root file system  5.13                                           off  (what Compose gives a service)

    agent coder (2 replicas); the kernel says: ok, differs
       CONTROL                                 CIS                       PSS                                  DECLARED
    ✔  user                                    4.1 5.24                  restricted:running-as-non-root-user  10001:10001
    ✔  further groups                                                                                         none
    ✘  capabilities                            5.4                       restricted:capabilities              drop ALL; add none
    ✔  privileged                              5.5                       baseline:privileged-containers       off
    ✔  no new privileges                       5.26                      restricted:privilege-escalation      on
    ✔  seccomp profile                         5.22 2.17                 restricted:seccomp                   ours, default
    ✔  AppArmor profile                        5.2                       baseline:apparmor                    the engine's own
    ✔  read-only root file system              5.13                                                           on
    ✔  masked paths of /proc and /sys                                    baseline:proc-mount-type             /proc/acpi, /proc/asound, /proc/interrupts, /proc/kcore, /proc/keys, /p…
    ✔  read-only paths of /proc                                          baseline:proc-mount-type             /proc/bus, /proc/fs, /proc/irq, /proc/sys, /proc/sysrq-trigger
    ✔  memory limit                            5.11                                                           536870912, no swap
    ✘  CPU limit                               5.12                                                           1
    ✔  limit of processes                      5.29                                                           256
    ✔  limits per process                      5.19                                                           core 0:0, nofile 4096:4096
    ✔  out of memory                                                                                          score 500
    ✔  init                                                                                                   on
    ✔  size of /dev/shm                                                                                       67108864
    ✔  namespaces                              5.10 5.16 5.17 5.21 5.31  baseline:host-namespaces             ipc own, pid own, uts own, user own, cgroup own
    ✔  parent control group                    5.25                                                           own
    ✔  devices of the host                     5.18                                                           none
    ✔  kernel settings                                                   baseline:sysctls                     net.ipv4.ping_group_range=1 0, net.ipv6.conf.all.disable_ipv6=1
    ✔  mounts                                  5.6 5.20 5.32             restricted:volume-types              bind /data/volumes/demo_agentctl-secrets/_data/demo-coder-1 at /run/sec…
    ✔  mounts that come through from the host  5.20                                                           none
    ✔  memory file systems                                                                                    /tmp 67108864, /workspace 268435456 exec
    ✔  other containers' volumes                                                                              none
    ✔  networks                                5.10 5.30                 baseline:host-namespaces             demo_agent-coder 10.192.2.9, demo_link-coder.store 10.192.4.9
    ✔  name resolution                                                                                        127.0.0.1; gateway:10.192.2.2, store:10.192.4.241
    ✔  published ports                         5.8 5.9 5.14              baseline:host-ports                  none
    ✔  environment variables                                                                                  A, AGENTCTL_AGENT, AGENTCTL_CONCURRENCY, AGENTCTL_GATEWAY, AGENTCTL_HAN…
    ✔  image and program                                                                                      agent:1; entrypoint the image's; command the image's
    ✔  OCI runtime                                                                                            the engine's own
    ✔  restart policy                          5.15                                                           no
    ✔  size of logs                            2.13                                                           json-file, 3 of 10m

    agent loose; the kernel says: ok
       CONTROL                                 CIS                       PSS                                  DECLARED
    ✔  user                                    4.1 5.24                  restricted:running-as-non-root-user  10001:10001
    ✔  further groups                                                                                         none
    !  capabilities                            5.4                       restricted:capabilities              drop ALL; add NET_RAW  (with NET_RAW it can take the addresses of others on its networks)
    ✔  privileged                              5.5                       baseline:privileged-containers       off
    !  no new privileges                       5.26                      restricted:privilege-escalation      off  (a program with set-uid or file capabilities gives it more than it has)
    ✔  seccomp profile                         5.22 2.17                 restricted:seccomp                   ours, strict
    ✔  AppArmor profile                        5.2                       baseline:apparmor                    the engine's own
    !  read-only root file system              5.13                                                           off  (it can write its root file system, without a limit of size)
    ✔  masked paths of /proc and /sys                                    baseline:proc-mount-type             /proc/acpi, /proc/asound, /proc/interrupts, /proc/kcore, /proc/keys, /p…
    ✔  read-only paths of /proc                                          baseline:proc-mount-type             /proc/bus, /proc/fs, /proc/irq, /proc/sys, /proc/sysrq-trigger
    ✔  memory limit                            5.11                                                           536870912, no swap
    ✔  CPU limit                               5.12                                                           1
    ✔  limit of processes                      5.29                                                           256
    ✔  limits per process                      5.19                                                           core 0:0, nofile 4096:4096
    ✔  out of memory                                                                                          score 500
    ✔  init                                                                                                   on
    !  size of /dev/shm                                                                                       134217728  (a larger /dev/shm than the default of 67108864)
    ✔  namespaces                              5.10 5.16 5.17 5.21 5.31  baseline:host-namespaces             ipc own, pid own, uts own, user own, cgroup own
    ✔  parent control group                    5.25                                                           own
    ✔  devices of the host                     5.18                                                           none
    ✔  kernel settings                                                   baseline:sysctls                     net.ipv4.ping_group_range=1 0, net.ipv6.conf.all.disable_ipv6=1
    ✔  mounts                                  5.6 5.20 5.32             restricted:volume-types              bind /data/volumes/demo_agentctl-secrets/_data/demo-loose-1 at /run/sec…
    ✔  mounts that come through from the host  5.20                                                           none
    ✔  memory file systems                                                                                    /tmp 67108864, /workspace 268435456 exec
    ✔  other containers' volumes                                                                              none
    ✔  networks                                5.10 5.30                 baseline:host-namespaces             demo_agent-loose 10.192.3.9
    ✔  name resolution                                                                                        127.0.0.1; gateway:10.192.3.2
    ✔  published ports                         5.8 5.9 5.14              baseline:host-ports                  none
    ✔  environment variables                                                                                  AGENTCTL_AGENT, AGENTCTL_CONCURRENCY, AGENTCTL_GATEWAY, AGENTCTL_HANDLE…
    ✔  image and program                                                                                      agent:1; entrypoint the image's; command the image's
    !  OCI runtime                                                                                            runsc  (its own runtime keeps the boundary, and not the engine's default one)
    ✔  restart policy                          5.15                                                           no
    ✔  size of logs                            2.13                                                           json-file, 3 of 10m

    Loosened by the file
       OF           KEY           VALUE                    WHAT IT OPENS
    !  agent loose  cap_add       NET_RAW                  with NET_RAW it can take the addresses of others on its networks
    !  agent loose  security_opt  no-new-privileges:false  a program with set-uid or file capabilities gives it more than it has
    !  agent loose  shm_size      134217728                a larger /dev/shm than the default of 67108864
    !  agent loose  runtime       runsc                    its own runtime keeps the boundary, and not the engine's default one
    !  agent loose  read_only     false                    it can write its root file system, without a limit of size

    The machine
     ! the kernel of the engine has neither AppArmor nor SELinux: seccomp and capabilities stand alone (CIS 5.2, 5.3)
     ! the engine maps no user namespace: uid 0 of a container is the host's uid 0 (CIS 2.9)

    Not as declared
       SEVERITY  CONTAINER     CONTROL       CIS   DECLARED            IS                       SAYS
    ✘  high      demo-coder-2  capabilities  5.4   drop ALL; add none  drop ALL; add NET_ADMIN  the engine
    ✘  medium    demo-coder-2  cpus          5.12  1                   2                        the engine
    ✘  high      demo-coder-2  capabilities  5.4   none                NET_ADMIN                the kernel

    demo: 165 controls of 5 containers: 3 not as declared, 10 loosened
    "
  `)
})

const STATUS =
  'Name:\tdocker-init\nUid:\t10001\t10001\t10001\t10001\nGid:\t10001\t10001\t10001\t10001\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n'
const MOUNTS = [
  '1 0 0:1 / / ro,relatime master:1 - overlay overlay rw,lowerdir=x',
  '2 1 0:2 / /proc rw,nosuid - proc proc rw',
  '3 1 0:3 / /sys ro,nosuid - sysfs sysfs ro',
  '4 2 0:2 /sys /proc/sys ro,nosuid - proc proc rw',
  '5 1 0:5 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=1024k',
  '6 1 0:6 /a\\040b /run/secrets ro - tmpfs tmpfs rw,size=16384k',
  '7 1 8:1 /x /usr/sbin/docker-init ro - ext4 /dev/sda rw',
].join('\n')
const ROUTES = 'Iface\tDestination\tGateway\tFlags\neth0\t00000000\t0105C00A\t0003\neth0\t0005C00A\t00000000\t0001\n'
const DEVICES = 'Inter-|   Receive\n face |bytes\n    lo: 0 0\n  eth0: 0 0\n'
/** cgroups v1. */
const LIMITS = ['', '536870912\n', '', '256\n', '', '100000\n']
const said = (...parts: readonly string[]): string => parts.join('--- agentctl probe ---\n')
const SMALL: ContainerSpec = {
  ...named('coder-1'),
  environment: { A: '1' },
  endpoints: [{ network: 'n', address: '10.192.5.9' }],
  binds: [{ source: '/s', target: '/run/secrets', read_only: true }],
  volumes: [],
  tmpfs: [{ target: '/tmp', size: 1_048_576, exec: false, mode: 0o755 }],
}

test('what the kernel says is read and compared; only process 1 is another for who joined from beside', () => {
  const probed = (...parts: readonly string[]): readonly string[] => {
    const seen = parseProbe(said(...parts))
    return seen === null ? ['not readable'] : compareProbe(SMALL, seen).map(renderDifference)
  }
  expect(probed(STATUS, MOUNTS, ROUTES, DEVICES, ...LIMITS, 'A=1\0PATH=/bin\0')).toEqual([])
  expect(probed('cat: /proc/1/status: No such file')).toEqual(['not readable'])
  expect(
    probed(
      STATUS.replaceAll('10001', '0')
        .replace('CapEff:\t0000000000000000', 'CapEff:\t0000000000001000')
        .replace('Seccomp:\t2', 'Seccomp:\t0'),
      `${MOUNTS.replace('ro,relatime', 'rw,relatime').replace('/run/secrets ro', '/run/secrets rw')}\n9 1 8:1 / /host rw - ext4 /dev/sda rw`,
      `${ROUTES}eth1\t000011AC\t00000000\t0001\n`,
      `${DEVICES}  eth1: 0 0\n`,
      ...['max\n', '', 'max\n', '', 'max 100000\n', ''],
      'PATH=/bin\0',
    ),
  ).toEqual([
    'user: declared 10001 10001 10001 10001, is 0 0 0 0',
    'user: declared 10001 10001 10001 10001, is 0 0 0 0',
    'capabilities: declared none, is NET_ADMIN',
    'seccomp: declared a filter, is mode 0',
    'memory: declared 536870912, is max',
    'pids: declared 256, is max',
    'cpus: declared 1, is unlimited',
    'read-only-root: declared / read-only, is / writable',
    'mounts: declared /run/secrets read-only, is /run/secrets writable',
    'mounts: declared /host not mounted, is /host mounted',
    'networks: declared 1 interfaces, is 2 interfaces',
    'networks: declared no other route, is a route to 172.17.0.0 by eth1',
    'environment: declared all of its variables, is without A',
  ])
  // What the image declares as a volume, and device nodes of a rootless engine, are no surprise.
  const more = parseProbe(
    said(
      STATUS,
      `${MOUNTS}\n8 1 8:1 /v /cache rw - ext4 /dev/sda rw\n9 1 0:9 / /dev/null rw - devtmpfs d rw`,
      ROUTES,
      DEVICES,
      ...LIMITS,
      'A=1\0',
    ),
  )
  expect(more === null ? null : compareProbe(SMALL, more, ['/cache'])).toEqual([])
  // A kernel of its own (gVisor) may have no such fields: then the engine alone is asked.
  expect(probed('Name:\tx\n', MOUNTS, ROUTES, DEVICES, ...LIMITS, 'A=1\0')).toEqual([])
  // What a variable holds comes last, so that it cannot say anything else.
  expect(probed(STATUS, MOUNTS, ROUTES, DEVICES, ...LIMITS, `A=--- agentctl probe ---\n${STATUS}\0`)).toEqual([])
  expect(probeCommand(true)).toContain('/proc/self/mountinfo')
  expect(probeCommand(false)).toContain('/proc/1/mountinfo')
  expect(capabilitiesOf('000001ffffffffff').split(', ')).toHaveLength(41)
})
