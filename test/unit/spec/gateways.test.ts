import { expect, test } from 'vitest'
import { configView } from '../../../spec/config.ts'
import { gatewaysOf } from '../../../spec/model.ts'
import { loadText, problems, project } from './loading.ts'

test('gateway.replicas: one is the default and is not written down', () => {
  for (const text of ['', 'gateway: {}\n', 'gateway: { replicas: 1 }\n']) {
    const one = project(`${text}agents: { a: }\n`)
    expect([gatewaysOf(one), Object.hasOwn(one, 'gateway')]).toEqual([1, false])
  }
  const two = project('gateway: { replicas: 2 }\nagents: { a: }\n')
  expect([gatewaysOf(two), two.gateway]).toEqual([2, { replicas: 2 }])
  expect(configView(two)).toMatchObject({ gateway: { replicas: 2 } })
  expect(gatewaysOf(project('gateway: { replicas: "${N}" }\nagents: { a: }\n', { N: '3' }))).toBe(3)
})

test.each(['0', '5', '-1', 'two', '1.5'])('gateway.replicas: %s is refused once', (count) => {
  expect(problems(loadText(`gateway: { replicas: ${count} }\nagents: { a: }\n`))).toHaveLength(1)
})

test('what one gateway counts for the whole project does not go with two, each at its place', () => {
  const file = (gateways: number): string => `gateway: { replicas: ${gateways} }
broker: { concurrency: 9 }
agents:
  a: { rate_limit: 5/s }
  b: { concurrency: { total: 3 } }
  c: { concurrency: { key: "\${{ input.tenant }}" } }
  d: { image: "python:3" }
  e: { max_queue: 10, concurrency: 4 }
`
  expect(problems(loadText(file(1)))).toEqual([])
  const counted = 'is counted by one gateway, and the project has 2: none knows what the others hand out'
  expect(problems(loadText(file(2)))).toEqual([
    `2:24 AG2006 concurrency of the broker ${counted}`,
    `4:20 AG2006 rate_limit of agent "a" ${counted}`,
    `5:30 AG2006 concurrency.total of agent "b" ${counted}`,
    `6:28 AG2006 concurrency.key of agent "c" ${counted}`,
    '7:15 AG2006 agent "d" has an image of its own, which may know one gateway only, and the project has 2',
  ])
})
