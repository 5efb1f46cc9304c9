/** Composition root of the egress container: `node egress.mjs [record] [port] [proxy port]`; all have defaults. */
import { CONTROL_ENV, PATHS, PROXY_PORT } from '../names.ts'
import { OTLP_PORT } from '../otlp.ts'
import { RELAY_PORT } from '../relay.ts'
import { ATTR, SPAN } from '../telemetry/names.ts'
import { startTelemetry } from '../telemetry/setup.ts'
import { recordSpan } from '../telemetry/spans.ts'
import { newTraceparent } from '../telemetry/traceparent.ts'
import { type AuditRecord, makeAudit } from './audit.ts'
import { followRecord } from './follow.ts'
import { realNet } from './net.ts'
import { startProxy } from './proxy.ts'
import { startRelay } from './relay.ts'
import { startEgress } from './server.ts'

const note = (message: string): void => {
  process.stderr.write(`${JSON.stringify({ at: new Date().toISOString(), part: 'egress', message })}\n`)
}

const [record = PATHS.record, port = String(OTLP_PORT), proxyPort = String(PROXY_PORT)] = process.argv.slice(2)
const from = process.env[CONTROL_ENV]
const egress = await startEgress({ record, port: Number(port), note, ...(from === undefined ? {} : { from }) })
// Its own spans go the way of all others, and wait for nobody there.
const telemetry = await startTelemetry({
  service: 'agentctl-egress',
  project: process.env['AGENTCTL_PROJECT'] ?? '',
  url: `http://127.0.0.1:${egress.port}/v1/traces`,
})
const span = (audit: AuditRecord): void => {
  if (!egress.isForwarding()) return
  const now = Date.now()
  recordSpan({
    name: SPAN.egress(audit.agent),
    traceparent: newTraceparent(null),
    parent: null,
    kind: 'client',
    start: now,
    end: now,
    attributes: {
      [ATTR.agentName]: audit.agent,
      [ATTR.replica]: audit.replica,
      [ATTR.egressVerdict]: audit.verdict,
      [ATTR.egressReason]: audit.reason,
      [ATTR.egressScheme]: audit.scheme,
      ...(audit.rule === null ? {} : { [ATTR.egressRule]: audit.rule }),
      ...(audit.host === null ? {} : { [ATTR.serverAddress]: audit.host }),
      ...(audit.port === null ? {} : { [ATTR.serverPort]: audit.port }),
      ...(audit.method === null ? {} : { [ATTR.httpMethod]: audit.method }),
    },
    error: audit.verdict === 'deny' ? audit.reason : null,
  })
}
const audit = makeAudit({ write: (lines) => void process.stdout.write(lines), span })
const proxy = await startProxy({ port: Number(proxyPort), net: realNet, audit })
const unfollow = await followRecord(record, proxy, note)

// ADDRESS,GATEWAY,…: only where the project has a broker of its own.
const [host = '', ...allowed] = (process.env['AGENTCTL_RELAY'] ?? '').split(',')
const relay = host === '' ? null : await startRelay({ record, host, port: RELAY_PORT, allowed, note })

const stop = async (): Promise<void> => {
  unfollow()
  await Promise.all([proxy.stop(), relay?.stop()])
  await telemetry.stop(500)
  await egress.stop()
}
const end = (): void => void stop().finally(() => process.exit(0))
process.once('SIGTERM', end)
process.once('SIGINT', end)
note(`the proxy listens on port ${proxy.port}`)
note(`listening on port ${egress.port}`)
