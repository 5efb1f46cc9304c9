/** The `pipelines` of the file, normalised. */
import { found } from './describe.ts'
import type { InputType, Pipeline, PipelineInput, PipelineJob, Template } from './model.ts'
import { type Context, names } from './context.ts'
import type { Json } from './protocol.ts'
import { isReference, json, template } from './references.ts'
import { child, entriesOf, type MapNode, type Node, textOf } from './tree.ts'
import { flag } from './workload.ts'

export function pipelineOf(name: string, node: MapNode, at: string, context: Context): Pipeline {
  const jobs = entriesOf(child(node, 'jobs'))
  return {
    name,
    inputs: Object.fromEntries(entriesOf(child(node, 'inputs')).map(([input, entry]) => [input, inputOf(input, entry.value, context)])),
    jobs: Object.fromEntries(jobs.map(([id, entry]) => [id, jobOf(id, entry.value, `${at}.jobs.${id}`, context)])),
  }
}

const typeOf = (value: Json): string => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value)

/** Plain JSON; a reference here has been reported as stray. */
function plain(node: Node): Json {
  if (node.kind === 'scalar') return json(node)
  if (node.kind === 'list') return node.items.map(plain)
  return Object.fromEntries([...node.entries].map(([key, entry]) => [key, plain(entry.value)]))
}

function inputOf(name: string, node: Node, context: Context): PipelineInput {
  const type = (textOf(child(node, 'type')) || 'string') as InputType
  const required = flag(child(node, 'required'), false, context)
  const given = child(node, 'default')
  if (given === undefined) return { type, required }
  let value = plain(given)
  // A variable's value is text; the input says what it means.
  if (type === 'string' && given.kind === 'scalar' && given.interpolatedFrom !== null) value = textOf(given)
  if (value !== null && typeOf(value) !== type) {
    const hint = type === 'string' && given.kind === 'scalar' ? 'put it in quotes' : `write a default of type ${type}, or change the type`
    context.report('AG1005', given.span, `expected a default of type ${type} for the input "${name}", got ${found(given)}`, { help: hint })
  }
  return { type, default: value, required }
}

function jobOf(id: string, node: Node, at: string, context: Context): PipelineJob {
  const given = child(node, 'with')
  return {
    id,
    agent: textOf(child(node, 'agent')),
    needs: names(child(node, 'needs'), `${at}.needs`, context),
    type: textOf(child(node, 'type')) || 'task',
    with: given === undefined ? {} : template(given, context.report),
    foreach: foreachOf(child(node, 'foreach'), context),
  }
}

function foreachOf(node: Node | undefined, context: Context): PipelineJob['foreach'] {
  if (node === undefined || (node.kind === 'scalar' && node.value === null)) return null
  const list = node.kind === 'map' ? child(node, 'in') : node
  if (list === undefined) return null
  const value: Template = template(list, context.report)
  if (!Array.isArray(value) && !isReference(value) && !(list.kind === 'scalar' && list.reference))
    context.report('AG1005', list.span, `expected a list or a reference to one for foreach, got ${found(list)}`, {
      help: 'for example foreach: ${{ needs.plan.result.parts }}',
    })
  return { in: value, as: node.kind === 'map' ? textOf(child(node, 'as')) || 'item' : 'item' }
}
