import { afterAll, beforeAll, expect, test } from 'vitest'
import { SECCOMP, STRICT_SECCOMP } from '../../../engine/seccomp.ts'
import type { ContainerRuntime } from '../../../engine/ports.ts'
import { containerSpec } from '../../support/container-spec.ts'
import { cleanup, images, runtime, uniqueProject } from '../../support/docker.ts'

/** Attacks from inside a container under engine/seccomp/agent.json; perl makes the calls, since it is in every Debian. */
const project = uniqueProject('t-seccomp')
let engine: ContainerRuntime
let id = ''

beforeAll(async () => {
  engine = await runtime()
  const image = (await images()).agent
  id = await engine.createContainer(
    containerSpec({
      project,
      image,
      seccomp: SECCOMP,
      mem_limit: 268_435_456,
      tmpfs: [{ target: '/tmp', size: 8_388_608, exec: false, mode: 0o1777 }],
    }),
  )
  await engine.start(id)
})
afterAll(() => cleanup(project))

const [EPERM, ENOSYS] = [1, 38]
type Numbers = { readonly x64: number; readonly arm64: number }
const CALLS: { readonly [name: string]: Numbers } = {
  ptrace: { x64: 101, arm64: 117 },
  process_vm_readv: { x64: 310, arm64: 270 },
  unshare: { x64: 272, arm64: 97 },
  setns: { x64: 308, arm64: 268 },
  mount: { x64: 165, arm64: 40 },
  umount2: { x64: 166, arm64: 39 },
  pivot_root: { x64: 155, arm64: 41 },
  open_tree: { x64: 428, arm64: 428 },
  fsopen: { x64: 430, arm64: 430 },
  keyctl: { x64: 250, arm64: 219 },
  add_key: { x64: 248, arm64: 217 },
  bpf: { x64: 321, arm64: 280 },
  perf_event_open: { x64: 298, arm64: 241 },
  userfaultfd: { x64: 323, arm64: 282 },
  io_uring_setup: { x64: 425, arm64: 425 },
  io_uring_enter: { x64: 426, arm64: 426 },
  kexec_load: { x64: 246, arm64: 104 },
  init_module: { x64: 175, arm64: 105 },
  name_to_handle_at: { x64: 303, arm64: 264 },
  open_by_handle_at: { x64: 304, arm64: 265 },
  pidfd_getfd: { x64: 438, arm64: 438 },
  kcmp: { x64: 312, arm64: 272 },
  memfd_secret: { x64: 447, arm64: 447 },
  syslog: { x64: 103, arm64: 116 },
}
const number = ({ x64, arm64 }: Numbers): number => (process.arch === 'arm64' ? arm64 : x64)

/** errno of a raw system call, 0 if it succeeded. */
async function errno(call: Numbers, ...args: readonly number[]): Promise<number> {
  const script = `my $r = syscall(${[number(call), ...args].join(',')}); print $r == -1 ? $!+0 : 0`
  const { stdout, stderr } = await engine.exec(id, ['perl', '-e', script])
  expect(stderr.toString()).toBe('')
  return Number(stdout)
}

test.each(Object.keys(CALLS))('%s is refused', async (name) => {
  expect(await errno(CALLS[name] as Numbers, 0, 0, 0, 0, 0)).toBe(EPERM)
})

test.each([
  ['AF_UNIX', 1, 0, 0],
  ['AF_INET', 2, 0, 0],
  ['AF_INET6', 10, 0, 0],
  ['AF_NETLINK for routes', 16, 0, 0],
  ['AF_NETLINK for netfilter', 16, 12, EPERM],
  ['AF_PACKET', 17, 0, EPERM],
  ['AF_ALG', 38, 0, EPERM],
  ['AF_VSOCK', 40, 0, EPERM],
  ['AF_BLUETOOTH', 31, 0, EPERM],
])('a socket of %s', async (_, family, protocol, expected) => {
  const STREAM = 1
  const RAW = 3
  expect(await errno({ x64: 41, arm64: 198 }, family, family >= 16 ? RAW : STREAM, protocol)).toBe(expected)
})

test('clone cannot make namespaces, and clone3 does not exist, so that libc uses clone', async () => {
  const CLONE_NEWUSER = 0x10000000
  expect(await errno({ x64: 56, arm64: 220 }, CLONE_NEWUSER, 0, 0, 0, 0)).toBe(EPERM)
  expect(await errno({ x64: 435, arm64: 435 }, 0, 0)).toBe(ENOSYS)
})

test('what agents run still runs: threads, children, timers, sockets, git, curl, pipes', async () => {
  const script = `
    const { Worker } = require('node:worker_threads')
    const { execFileSync } = require('node:child_process')
    const http = require('node:http'), fs = require('node:fs')
    fs.watch('/tmp', () => {}).close()
    new Worker('require("node:worker_threads").parentPort.postMessage(1)', { eval: true }).on('message', () => {
      const server = http.createServer((_, response) => response.end('pong')).listen(0, '127.0.0.1', () => {
        const url = 'http://127.0.0.1:' + server.address().port
        require('node:child_process').execFile('curl', ['-s', url], (error, text) => {
          execFileSync('sh', ['-c', 'cd /tmp && git init -q r && cd r && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -qm m && git log --oneline | wc -l && mkfifo p'])
          console.log(text, Object.keys(require('node:os').networkInterfaces()).join())
          process.exit(error ? 1 : 0)
        })
      })
    })`
  const result = await engine.exec(id, ['node', '-e', script], { env: ['HOME=/tmp'] })
  expect({ code: result.exit_code, out: result.stdout.toString(), err: result.stderr.toString() }).toEqual({
    code: 0,
    out: 'pong lo\n',
    err: '',
  })
})

test('the kernel says that the filter is on', async () => {
  const { stdout } = await engine.exec(id, ['grep', '-E', '^(Seccomp|NoNewPrivs):', '/proc/self/status'])
  expect(stdout.toString().split(/\s+/).slice(0, 4)).toEqual(['NoNewPrivs:', '1', 'Seccomp:', '2'])
})

test('strict: what the default allows beyond it is refused, and what agents run still runs', async () => {
  const strict = await engine.createContainer(
    containerSpec({
      project,
      image: (await images()).agent,
      name: `${project}-strict-1`,
      seccomp: STRICT_SECCOMP,
      mem_limit: 268_435_456,
      tmpfs: [{ target: '/tmp', size: 8_388_608, exec: false, mode: 0o1777 }],
    }),
  )
  await engine.start(strict)
  const probe = async (container: string, call: Numbers, ...args: readonly (number | string)[]): Promise<number> => {
    const script = `my $name = "x"; my $r = syscall(${[number(call), ...args].join(',')}); print $r == -1 ? $!+0 : 0`
    return Number((await engine.exec(container, ['perl', '-e', script])).stdout)
  }
  const SHMGET: Numbers = { x64: 29, arm64: 194 }
  const MEMFD: Numbers = { x64: 319, arm64: 279 }
  const SOCKET: Numbers = { x64: 41, arm64: 198 }
  for (const [call, args] of [
    [SHMGET, [0, 4096, 0o1600]],
    [MEMFD, ['$name', 0]],
    [SOCKET, [16, 3, 0]],
  ] as const) {
    expect(await probe(id, call, ...args), 'default').toBe(0)
    expect(await probe(strict, call, ...args), 'strict').toBe(EPERM)
  }
  const script = `
    const { Worker } = require('node:worker_threads')
    const { execFile, execFileSync } = require('node:child_process')
    const http = require('node:http'), fs = require('node:fs')
    fs.watch('/tmp', () => {}).close()
    new Worker('require("node:worker_threads").parentPort.postMessage(1)', { eval: true }).on('message', () => {
      const server = http.createServer((_, response) => response.end('pong')).listen(0, '127.0.0.1', () => {
        execFile('curl', ['-s', 'http://127.0.0.1:' + server.address().port], (error, text) => {
          execFileSync('sh', ['-c', 'cd /tmp && git init -q r && cd r && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -qm m'])
          console.log(text)
          process.exit(error ? 1 : 0)
        })
      })
    })`
  const result = await engine.exec(strict, ['node', '-e', script], { env: ['HOME=/tmp'] })
  expect({ code: result.exit_code, out: result.stdout.toString(), err: result.stderr.toString() }).toEqual({
    code: 0,
    out: 'pong\n',
    err: '',
  })
})
