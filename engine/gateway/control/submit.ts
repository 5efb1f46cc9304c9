/** What is submitted, checked field by field: what is unknown, or goes with something else, is refused by name. */
import type { SubmitRequest } from '../../../spec/protocol.ts'
import { isTooDeep, MAX_NESTING } from '../depth.ts'
import type { Fields } from '../http.ts'
import { wrong } from './call.ts'

/** `body` has passed the schema SubmitRequest. */
export function submitRequest(body: Fields): SubmitRequest {
  const { pipeline, inputs, agent, type, tasks, dedup_key, dedup_ttl_ms } = body
  if ((pipeline === undefined) === (agent === undefined)) throw wrong('give either "pipeline" with "inputs", or "agent" with "tasks"')
  for (const [name, value] of Object.entries(pipeline === undefined ? { inputs } : { type, tasks }))
    if (value !== undefined)
      throw wrong(
        `"${name}" goes with "${pipeline === undefined ? 'pipeline' : 'agent'}", not with "${pipeline === undefined ? 'agent' : 'pipeline'}"`,
      )
  if (agent !== undefined && tasks === undefined) throw wrong('"tasks" must be a list of inputs, one per task')
  if (dedup_ttl_ms !== undefined && dedup_key === undefined) throw wrong('"dedup_ttl_ms" goes with "dedup_key"')
  shallow('"inputs"', inputs)
  for (const [index, input] of ((tasks ?? []) as readonly unknown[]).entries()) shallow(`"tasks"[${index}]`, input)
  return (agent !== undefined && type === undefined ? { ...body, type: 'task' } : body) as unknown as SubmitRequest
}

export function shallow(what: string, value: unknown): void {
  if (isTooDeep(value)) throw wrong(`${what} nests more than ${MAX_NESTING} levels deep`)
}
