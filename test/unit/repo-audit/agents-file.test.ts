import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, test } from 'vitest'
import { reconcile } from '../../../engine/reconcile.ts'
import { load } from '../../../spec/load.ts'
import type { Project } from '../../../spec/model.ts'
import { nothing, want } from '../../support/project.ts'

const FILE = resolve(import.meta.dirname, '../../../examples/repo-audit/agents.yaml')

function example(): Project {
  const { project, diagnostics } = load({ files: [FILE], readFile: (path) => readFileSync(path, 'utf8'), environment: {} })
  expect(diagnostics).toEqual([])
  if (project === null) throw new Error('the example does not load')
  return project
}

test('three analysts and the lead can only read the source; the reporter cannot even see it', () => {
  const { agents } = example()
  const mounts = Object.fromEntries(
    Object.entries(agents).map(([name, agent]) => [
      name,
      agent.mounts.flatMap((mount) => (mount.type === 'volume' ? [`${mount.source}${mount.read_only ? ':ro' : ''}`] : [])),
    ]),
  )
  expect(mounts).toEqual({ intake: ['source'], lead: ['source:ro'], analyst: ['source:ro'], reporter: ['reports'] })
  expect(agents['analyst']?.replicas).toBe(3)
  expect(agents['lead']?.delegates_to).toEqual(['analyst'])
})

test('the volume of the source is given to its user through the one mount that writes', () => {
  const { steps } = reconcile(want(example()), nothing, { writeRecord: null })
  const through = steps.flatMap(({ operation }) =>
    operation.op === 'own-volume' && operation.volume.endsWith('_source') ? [operation.container] : [],
  )
  expect(through).toEqual(['repo-audit-intake-1'])
})
