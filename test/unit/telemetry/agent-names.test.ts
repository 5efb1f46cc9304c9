import { expect, test } from 'vitest'
import { AGENT_SPAN, errorType as agentErrorType } from '../../../agents/telemetry.ts'
import { ATTR, SPAN } from '../../../engine/telemetry/names.ts'
import { errorType } from '../../../engine/telemetry/spans.ts'

test('the runtime inside an agent names its span and attributes as the engine does', () => {
  const { name, ...keys } = AGENT_SPAN
  expect(name('coder')).toBe(SPAN.agent('coder'))
  for (const [id, key] of Object.entries(keys)) expect(ATTR[id as keyof typeof ATTR], id).toBe(key)
})

test.each(['timeout', 'AG6004', 'ECONNRESET', 'x.y-z_1', '', 'two words', '1st', 'é', `a${'b'.repeat(64)}`])('error.type of %j', (code) => {
  expect(agentErrorType(code)).toBe(errorType(code))
})
