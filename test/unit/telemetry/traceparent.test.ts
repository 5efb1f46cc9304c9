import { expect, test } from 'vitest'
import {
  derivedTraceparent,
  formatTraceparent,
  newTraceparent,
  parseTraceparent,
  traceIdOf,
} from '../../../engine/telemetry/traceparent.ts'

const trace_id = '0af7651916cd43dd8448eb211c80319c'
const parent = `00-${trace_id}-b7ad6b7169203331-01`

test('text and ids are two forms of the same', () => {
  expect(parseTraceparent(parent)).toEqual({ trace_id, span_id: 'b7ad6b7169203331' })
  expect(formatTraceparent({ trace_id, span_id: 'b7ad6b7169203331' })).toBe(parent)
  expect(traceIdOf(parent)).toBe(trace_id)
})

test.each([
  null,
  undefined,
  '',
  'x',
  parent.toUpperCase(),
  `${parent}-00`,
  parent.replace('00-', 'ff-'),
  parent.replace(trace_id, '0'.repeat(32)),
  parent.replace('b7ad6b7169203331', '0'.repeat(16)),
  `${parent}\n`,
  parent.slice(1),
])('%j is no traceparent, and harms nobody', (text) => {
  expect(parseTraceparent(text)).toBeNull()
  expect(parseTraceparent(newTraceparent(text))).not.toBeNull()
})

test("a new span is in its parent's trace, under an id of its own", () => {
  const [a, b] = [newTraceparent(parent), newTraceparent(parent)]
  expect(traceIdOf(a)).toBe(trace_id)
  expect(new Set([a, b, parent]).size).toBe(3)
  expect(traceIdOf(newTraceparent())).not.toBe(traceIdOf(newTraceparent()))
})

test('a derived span is the same again for the same key, and another for another', () => {
  expect(derivedTraceparent(parent, 'process|t1|1')).toBe(derivedTraceparent(parent, 'process|t1|1'))
  expect(derivedTraceparent(parent, 'process|t1|2')).not.toBe(derivedTraceparent(parent, 'process|t1|1'))
  expect(traceIdOf(derivedTraceparent(parent, 'x'))).toBe(trace_id)
  // Two attempts below different parents of one trace: the key alone decides.
  expect(derivedTraceparent(newTraceparent(parent), 'x')).toBe(derivedTraceparent(parent, 'x'))
})
