/** Composition root of the egress container: `node egress.mjs [record] [port]`; both have defaults. */
import { PATHS } from '../names.ts'
import { OTLP_PORT } from '../otlp.ts'
import { RELAY_PORT } from '../relay.ts'
import { startRelay } from './relay.ts'
import { startEgress } from './server.ts'

const note = (message: string): void => {
  process.stderr.write(`${JSON.stringify({ at: new Date().toISOString(), part: 'egress', message })}\n`)
}

const [record = PATHS.record, port = String(OTLP_PORT)] = process.argv.slice(2)
const egress = await startEgress({ record, port: Number(port), note })
note(`listening on port ${egress.port}`)
// ADDRESS,GATEWAY,…: only where the project has a broker of its own.
const [host = '', ...allowed] = (process.env['AGENTCTL_RELAY'] ?? '').split(',')
const relay = host === '' ? null : await startRelay({ record, host, port: RELAY_PORT, allowed, note })

const stop = (): void => {
  void Promise.all([egress.stop(), relay?.stop()]).finally(() => process.exit(0))
}
process.once('SIGTERM', stop)
process.once('SIGINT', stop)
