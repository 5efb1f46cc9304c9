import { afterEach, beforeEach, expect, test } from 'vitest'
import { trace } from '@opentelemetry/api'
import { noTelemetry, startTelemetry, type Telemetry, type TelemetryOptions } from '../../../engine/telemetry/setup.ts'
import { errorType, recordSpan, withSpan } from '../../../engine/telemetry/spans.ts'
import { ATTR, SPAN } from '../../../engine/telemetry/names.ts'
import { derivedTraceparent, newTraceparent, parseTraceparent, traceIdOf } from '../../../engine/telemetry/traceparent.ts'
import { OtlpReceiver, parseSpans } from '../../support/otlp.ts'

const CANARY = 'canary-7f3a91-do-not-leak'
let receiver: OtlpReceiver
let telemetry: Telemetry = noTelemetry

beforeEach(async () => {
  receiver = await OtlpReceiver.start()
})
afterEach(async () => {
  await telemetry.stop(100)
  telemetry = noTelemetry
  await receiver.stop()
})

const start = async (options: Partial<TelemetryOptions> = {}): Promise<Telemetry> => {
  telemetry = await startTelemetry({
    service: 'gateway',
    instance: 'demo-agentctl-gateway-1',
    project: 'demo',
    url: `${receiver.url}/v1/traces`,
    ...options,
  })
  return telemetry
}
const span = (name = 'x'): Promise<string> => withSpan(name, {}, (traceparent) => Promise.resolve(traceparent))
const took = async (what: Promise<unknown>): Promise<number> => {
  const before = performance.now()
  await what
  return performance.now() - before
}

test('spans arrive as one tree under the service that made them, with nothing about the machine', async () => {
  await start({ version: '0.1.0' })
  await withSpan(SPAN.command('run'), { attributes: { [ATTR.command]: 'run' } }, async (root) => {
    await withSpan(SPAN.send('coder'), { parent: root, kind: 'producer' }, async (sent) => {
      recordSpan({
        name: SPAN.process('coder'),
        traceparent: newTraceparent(sent),
        parent: sent,
        kind: 'consumer',
        start: 1_000,
        end: 2_500,
        attributes: { [ATTR.attempt]: 1 },
      })
    })
  })
  await telemetry.stop()
  const spans = receiver.spans()
  const named = (name: string): (typeof spans)[number] => spans.find((each) => each.name === name) as (typeof spans)[number]
  const [root, sent, processed] = [named('agentctl run'), named('send coder'), named('process coder')]
  expect(spans).toHaveLength(3)
  expect(new Set(spans.map((each) => each.trace_id)).size).toBe(1)
  expect([root.parent, sent.parent, processed.parent]).toEqual(['', root.span_id, sent.span_id])
  expect([root.kind, sent.kind, processed.kind]).toEqual(['internal', 'producer', 'consumer'])
  expect(processed).toMatchObject({ start_ms: 1_000, end_ms: 2_500, attributes: { [ATTR.attempt]: 1 }, error: false })
  expect(Object.keys(root.resource).toSorted()).toEqual([
    'service.instance.id',
    'service.name',
    'service.namespace',
    'service.version',
    'telemetry.sdk.language',
    'telemetry.sdk.name',
    'telemetry.sdk.version',
  ])
  expect(root.resource).toMatchObject({
    'service.name': 'gateway',
    'service.namespace': 'demo',
    'service.instance.id': 'demo-agentctl-gateway-1',
  })
})

test('a span told after the fact has the ids that its children already refer to', async () => {
  await start()
  const run = newTraceparent()
  const attempt = derivedTraceparent(run, 'process|run_1.a.0|1')
  recordSpan({ name: 'child', traceparent: newTraceparent(attempt), parent: attempt, start: 2, end: 3 })
  recordSpan({ name: 'process a', traceparent: attempt, parent: run, start: 1, end: 4 })
  recordSpan({ name: 'run', traceparent: run, parent: null, start: 0, end: 5 })
  recordSpan({ name: 'clock set back', traceparent: newTraceparent(run), parent: run, start: 9, end: 5 })
  const free = await span('unforced')
  await telemetry.stop()
  const ids = Object.fromEntries(receiver.spans().map((each) => [each.name, each]))
  expect(ids['run']).toMatchObject({ ...parseTraceparent(run), parent: '' })
  expect(ids['process a']).toMatchObject({ ...parseTraceparent(attempt), parent: parseTraceparent(run)?.span_id })
  expect(ids['child']).toMatchObject({ trace_id: traceIdOf(run), parent: parseTraceparent(attempt)?.span_id })
  expect(ids['clock set back']).toMatchObject({ start_ms: 9, end_ms: 9 })
  expect(ids['unforced']).toMatchObject({ ...parseTraceparent(free), parent: '' })
  expect(traceIdOf(free)).not.toBe(traceIdOf(run))
})

test('a failure is ERROR with its type; a secret in its message, code or class goes nowhere', async () => {
  await start()
  const fail = async (error: unknown): Promise<void> => {
    await expect(withSpan('work', {}, () => Promise.reject(error))).rejects.toBe(error)
  }
  await fail(new TypeError(`bad input: ${CANARY}`))
  await fail(Object.assign(new Error(CANARY), { code: 'AG5001' }))
  await fail(Object.assign(new Error('x'), { code: `bad ${CANARY}` }))
  await fail(`thrown text: ${CANARY}`)
  recordSpan({ name: 'work', traceparent: newTraceparent(), parent: null, start: 1, end: 2, error: { code: 'timeout', message: CANARY } })
  await span('good')
  await telemetry.stop()
  const spans = receiver.spans()
  expect(spans.filter((each) => each.error).map((each) => [each.attributes['error.type'], each.status_message])).toEqual([
    ['TypeError', ''],
    ['AG5001', ''],
    ['error', ''],
    ['error', ''],
    ['timeout', ''],
  ])
  expect(spans.find((each) => each.name === 'good')?.error).toBe(false)
  expect(receiver.text()).not.toContain(CANARY)
  expect(errorType('a'.repeat(65))).toBe('error')
})

test('what OTEL_* and the command line of this process say stays here', async () => {
  const given: Record<string, string> = {
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://127.0.0.1:1/v1/traces',
    OTEL_EXPORTER_OTLP_HEADERS: `authorization=${CANARY}`,
    OTEL_EXPORTER_OTLP_TRACES_HEADERS: `x-key=${CANARY}`,
    OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    OTEL_RESOURCE_ATTRIBUTES: `service.name=wrong,leak=${CANARY}`,
    OTEL_SERVICE_NAME: 'wrong',
    OTEL_SDK_DISABLED: 'true',
    OTEL_TRACES_SAMPLER: 'always_off',
    OTEL_TRACES_EXPORTER: 'none',
    OTEL_LOGS_EXPORTER: 'otlp',
    OTEL_METRICS_EXPORTER: 'otlp',
    OTEL_NODE_RESOURCE_DETECTORS: 'all',
    OTEL_BSP_SCHEDULE_DELAY: '600000',
    OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: '0',
  }
  Object.assign(process.env, given)
  process.argv.push(`--token=${CANARY}`)
  try {
    await start()
    await withSpan('x', { attributes: { [ATTR.run]: 'run_1' } }, () => Promise.resolve())
    await telemetry.stop()
  } finally {
    process.argv.pop()
    for (const key of Object.keys(given)) delete process.env[key]
  }
  expect(receiver.spans()).toMatchObject([{ name: 'x', attributes: { [ATTR.run]: 'run_1' }, resource: { 'service.name': 'gateway' } }])
  expect(receiver.requests.map(({ path }) => path)).toEqual(['/v1/traces'])
  expect(JSON.stringify(receiver.requests.map(({ headers }) => headers)) + receiver.text()).not.toMatch(
    new RegExp(`${CANARY}|process\\.|host\\.|wrong`),
  )
})

test('a receiver that refuses, hangs or errs costs spans and no time beyond the bound of stop()', async () => {
  for (const mode of ['refuse', 'hang', 500] as const) {
    if (mode === 'refuse') await receiver.refuse()
    else receiver.mode = mode
    await start()
    // More than the queue holds: dropping is not waiting.
    expect(await took(Promise.all(Array.from({ length: 6_000 }, () => span())))).toBeLessThan(3_000)
    expect(await took(telemetry.stop(2_500))).toBeLessThan(5_000)
    if (mode === 'refuse') await receiver.listen()
  }
})

test('stop() ends on time when the receiver hangs longer, and what hangs is let go', async () => {
  receiver.mode = 'hang'
  await start()
  await span()
  await telemetry.stop(300)
  expect(receiver.requests).toHaveLength(1)
  // The request was aborted: nothing but this test's own server is left open.
  await expect.poll(() => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap'), { timeout: 5_000 }).toEqual([])
})

test('an export that the timer began just before stop() is waited for', async () => {
  const sent: string[] = []
  await start({
    url: null,
    send: async (body) => {
      await new Promise((resolve) => setTimeout(resolve, 400))
      sent.push(...parseSpans(Buffer.from(body).toString()).map(({ name }) => name))
    },
  })
  await span('early')
  await new Promise((resolve) => setTimeout(resolve, 700))
  await span('late')
  await telemetry.stop()
  expect(sent).toEqual(['early', 'late'])
})

test('another way out may throw, hang or ignore its signal', async () => {
  for (const send of [
    () => Promise.reject(new Error(CANARY)),
    () => new Promise<void>(() => {}),
    () => {
      throw new Error('at once')
    },
  ]) {
    await start({ url: null, send })
    await span()
    expect(await took(telemetry.stop(500))).toBeLessThan(4_000)
  }
})

test('off means off: no address, or one that is none, sends nothing, and ids still flow', async () => {
  for (const url of [null, 'not a url']) {
    telemetry = await startTelemetry({ service: 's', url })
    const parent = newTraceparent()
    const own = await withSpan('x', { parent }, (traceparent) => Promise.resolve(traceparent))
    expect(traceIdOf(own)).toBe(traceIdOf(parent))
    expect(own).not.toBe(parent)
    expect(parseTraceparent(await span())).not.toBeNull()
    recordSpan({ name: 'x', traceparent: own, parent, start: 1, end: 2 })
    expect(trace.getTracer('x').startSpan('x').isRecording()).toBe(false)
    await telemetry.stop()
  }
  expect(receiver.requests).toHaveLength(0)
})
