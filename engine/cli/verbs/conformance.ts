import { conformanceTable, RULE_IDS, runConformance } from '../../../agents/conformance/kit.ts'
import type { Json } from '../../../spec/protocol.ts'
import { EXIT } from '../../errors.ts'
import { usage } from '../failure.ts'
import { type Call, type Run, value, values } from '../verb.ts'

const DEFAULT_INPUT = '{"command": "echo ok"}'

export const conformance: Run = async ({ signal, out }, call) => {
  const image = value(call, 'image')
  const command = call.args
  if (image === null && command.length === 0)
    throw usage('conformance expects the command of an agent, or its image', 'agentctl conformance -- python3 agent.py')
  const only = values(call, 'rule')
  const unknown = only.find((id) => !RULE_IDS.includes(id))
  if (unknown !== undefined) throw usage(`there is no rule "${unknown}"`, `The rules are ${RULE_IDS.join(', ')}.`)
  const report = await runConformance({
    target: image === null ? { command } : { image, command },
    input: json(call, 'input', DEFAULT_INPUT),
    slow: json(call, 'slow', 'null'),
    bad: json(call, 'bad', 'null'),
    signal,
    ...(only.length === 0 ? {} : { only }),
  })
  await out.print(report, conformanceTable)
  return report.ok ? EXIT.done : EXIT.failed
}

function json(call: Call, name: string, fallback: string): Json {
  const text = value(call, name) ?? fallback
  try {
    return JSON.parse(text) as Json
  } catch {
    throw usage(`--${name} is not JSON: ${text.slice(0, 60)}`, `For example --${name} '${DEFAULT_INPUT}'`)
  }
}
