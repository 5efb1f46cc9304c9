/** Checks of pipelines: agents and jobs that exist, no cycle, references that can be resolved. */
import { type Checking, checkCycles, requireDeclared } from './checking.ts'
import type { Pipeline, PipelineJob, Template } from './model.ts'
import { isReference, showReference } from './references.ts'
import { didYouMean, known } from './suggest.ts'

export function checkPipeline(pipeline: Pipeline, checking: Checking): void {
  const { report, at } = checking
  const path = `pipelines.${pipeline.name}`
  for (const job of Object.values(pipeline.jobs)) {
    const jobPath = `${path}.jobs.${job.id}`
    const what = `job "${job.id}"`
    requireDeclared(checking, `${jobPath}.agent`, 'agents', job.agent, what)
    for (const [index, need] of job.needs.entries()) {
      if (Object.hasOwn(pipeline.jobs, need)) continue
      const names = Object.keys(pipeline.jobs)
      report('AG2001', at(`${jobPath}.needs.${index}`), `${what} needs "${need}", which is not a job of pipeline "${pipeline.name}"`, {
        help: didYouMean(need, names) ?? known('jobs', names),
      })
    }
    checkTemplate(job.with, `${jobPath}.with`, job.foreach?.as ?? null, job, pipeline, checking)
    checkForeach(job, jobPath, pipeline, checking)
  }
  const edges = new Map(Object.values(pipeline.jobs).map((job) => [job.id, job.needs]))
  checkCycles(edges, 'needs', (from, to) => at(`${path}.jobs.${from}.needs.${pipeline.jobs[from]?.needs.indexOf(to) ?? 0}`), report)
}

function checkForeach(job: PipelineJob, path: string, pipeline: Pipeline, checking: Checking): void {
  if (job.foreach === null) return
  const place = checking.written(`${path}.foreach.in`) ? `${path}.foreach.in` : `${path}.foreach`
  checkTemplate(job.foreach.in, place, null, job, pipeline, checking)
  if (!isReference(job.foreach.in) || job.foreach.in.$ref[0] !== 'inputs') return
  const input = pipeline.inputs[job.foreach.in.$ref[1] ?? '']
  if (input !== undefined && input.type !== 'array')
    checking.report(
      'AG1005',
      checking.at(place),
      `foreach needs a list, but the input "${job.foreach.in.$ref[1]}" is of type ${input.type}`,
      { help: 'give the input the type array' },
    )
}

function checkTemplate(
  value: Template,
  path: string,
  variable: string | null,
  job: PipelineJob,
  pipeline: Pipeline,
  checking: Checking,
): void {
  if (value === null || typeof value !== 'object') return
  if (isReference(value)) return checkReference(value.$ref, path, variable, job, pipeline, checking)
  for (const [key, part] of Object.entries(value as { readonly [key: string]: Template }))
    checkTemplate(part, `${path}.${key}`, variable, job, pipeline, checking)
}

function checkReference(
  names: readonly string[],
  path: string,
  variable: string | null,
  job: PipelineJob,
  pipeline: Pipeline,
  { report, at }: Checking,
): void {
  const [root = '', name, third] = names
  const shown = showReference({ $ref: names })
  if (root === variable) return
  if (root === 'inputs' && name !== undefined && names.length === 2) {
    if (Object.hasOwn(pipeline.inputs, name)) return
    const inputs = Object.keys(pipeline.inputs)
    return report('AG2001', at(path), `${shown} names the input "${name}", which pipeline "${pipeline.name}" does not declare`, {
      help: didYouMean(name, inputs) ?? known('inputs', inputs),
    })
  }
  if (root === 'needs' && name !== undefined && third === 'result') {
    if (job.needs.includes(name)) return
    if (Object.hasOwn(pipeline.jobs, name))
      return report('AG2004', at(path), `${shown} takes the result of "${name}", which job "${job.id}" does not wait for`, {
        help: `add "${name}" to the needs of "${job.id}"`,
      })
    return report('AG2001', at(path), `${shown} names the job "${name}", which pipeline "${pipeline.name}" does not have`, {
      help: didYouMean(name, job.needs) ?? known('jobs', Object.keys(pipeline.jobs)),
    })
  }
  const scope = variable === null ? '' : ` or \${{ ${variable} }}`
  report('AG2004', at(path), `${shown} refers to nothing`, { help: `expected \${{ inputs.NAME }}, \${{ needs.JOB.result.KEY }}${scope}` })
}
