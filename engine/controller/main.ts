import { connectDocker } from '../runtimes/docker/connect.ts'
import { runController } from './controller.ts'

const stop = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort())

const log = (line: { readonly [key: string]: unknown }): void =>
  void process.stdout.write(`${JSON.stringify({ at: new Date().toISOString(), ...line })}\n`)
const runtime = await connectDocker({ environment: { DOCKER_HOST: 'unix:///var/run/docker.sock' }, signal: stop.signal })
log({ event: 'controller started', project: process.env['AGENTCTL_PROJECT'] })
await runController({ runtime, project: process.env['AGENTCTL_PROJECT'] ?? '', log, signal: stop.signal })
process.exit(0)
