import { expect, test } from 'vitest'
import { allocateSubnets, hostAddress, hostRoutes } from '../../../engine/subnets.ts'

test('the first free /24 that no network and no route of the host covers', () => {
  expect(allocateSubnets({ networks: ['a', 'b'], chosen: {}, taken: ['10.192.0.0/24', '10.192.2.128/25', '172.17.0.0/16'] })).toEqual({
    a: '10.192.1.0/24',
    b: '10.192.3.0/24',
  })
})
test('what was chosen stays', () => {
  expect(allocateSubnets({ networks: ['a', 'b'], chosen: { b: '10.192.0.0/24' }, taken: [] })).toEqual({
    a: '10.192.1.0/24',
    b: '10.192.0.0/24',
  })
})
test('a full range is an error that names the way out', () => {
  expect(() => allocateSubnets({ networks: ['a', 'b'], chosen: {}, taken: [], range: '10.9.0.0/24' })).toThrow(
    /no free \/24 is left in 10\.9\.0\.0\/24 for network "b"/,
  )
  expect(() => allocateSubnets({ networks: ['a'], chosen: {}, taken: [], range: 'ten' })).toThrow(/expected an IPv4 range/)
})
test('sixty roles in two projects fit beside a hundred replicas', () => {
  const names = Array.from({ length: 62 }, (_, index) => `n${index}`)
  const first = allocateSubnets({ networks: names, chosen: {}, taken: [] })
  const second = allocateSubnets({ networks: names, chosen: {}, taken: Object.values(first) })
  expect(new Set([...Object.values(first), ...Object.values(second)]).size).toBe(124)
  expect(hostAddress('10.192.3.0/24', 9 + 99)).toBe('10.192.3.108')
})
test("routes are read from the kernel's little-endian table, the default route left out", () => {
  const table =
    'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\neth0\t00000000\t0102000A\t3\t0\t0\t0\t00000000\t0\neth0\t000011AC\t0\t1\t0\t0\t0\t0000FFFF\t0\n'
  expect(hostRoutes(table)).toEqual(['172.17.0.0/16'])
})
