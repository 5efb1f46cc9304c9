import { expect, test } from 'vitest'
import { overrides } from '../../../engine/record.ts'
import { agent, project, service } from '../../support/project.ts'

test('a scale that says what the file says is no override: the record is as before', () => {
  const of = project({ agents: [agent('worker', { replicas: 3 })], services: [service('db')] })
  expect(overrides(of, { worker: 3, db: 1 })).toEqual({})
  expect(overrides(of, { worker: 0, db: 2 })).toEqual({ worker: 0, db: 2 })
})
