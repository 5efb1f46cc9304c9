import { expect, test } from 'vitest'
import { KeyWindows } from '../../../engine/gateway/key-windows.ts'
import { isParked, type Task } from '../../../engine/gateway/work.ts'

function world(size: number) {
  const tasks = new Map<string, Task>()
  const limits = { size }
  const windows = new KeyWindows(
    () => limits.size,
    (id) => tasks.get(id),
  )
  const task = (id: string, { parent = null as Task | null, key = 'k', agent = 'work' } = {}): Task => {
    const made: Task = {
      id,
      agent,
      run: 'r',
      job: null,
      parent: parent?.id ?? null,
      depth: parent === null ? 0 : parent.depth + 1,
      type: 't',
      sent: '',
      created: 0,
      key,
      children: 0,
      lease: null,
    }
    tasks.set(id, made)
    if (parent !== null) {
      parent.children += 1
      windows.touch(parent)
    }
    return made
  }
  const add = (...list: readonly Task[]): string[] => {
    for (const it of list) windows.wait(it, false)
    return windows.turns().map((it) => it.id)
  }
  const end = (it: Task): string[] => {
    windows.leave(it)
    tasks.delete(it.id)
    const parent = it.parent === null ? undefined : tasks.get(it.parent)
    if (parent !== undefined) {
      parent.children -= 1
      windows.touch(parent)
    }
    return windows.turns().map((other) => other.id)
  }
  return { windows, limits, tasks, task, add, end }
}

test('so many have their turn, the others in order as these end', () => {
  const { task, add, end } = world(2)
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((id) => task(id)) as [Task, Task, Task, Task]
  expect(add(a, b, c, d)).toEqual(['a', 'b'])
  expect(end(b)).toEqual(['c'])
  // One that waits goes: nobody's turn comes by that.
  expect(end(d)).toEqual([])
  expect(end(a)).toEqual([])
})

test('keys and agents do not share their windows', () => {
  const { task, add } = world(1)
  expect(add(task('a'), task('b'), task('c', { key: 'other' }), task('d', { agent: 'other' })).sort()).toEqual(['a', 'c', 'd'])
})

test('a task keeps its turn while it is parked, and lends it to one descendant at a time', () => {
  const { windows, task, add, end } = world(1)
  const root = task('root')
  const next = task('next')
  expect(add(root, next)).toEqual(['root'])
  const [a, b] = [task('a', { parent: root }), task('b', { parent: root })]
  expect(isParked(root)).toBe(true)
  expect(add(a, b)).toEqual(['a'])
  const below = task('below', { parent: a })
  expect(add(below)).toEqual(['below'])
  expect(end(below)).toEqual([])
  expect(end(a)).toEqual(['b'])
  expect(end(b)).toEqual([])
  expect(windows.view(next)).toEqual({ size: 1, seats: 1, before: 0 })
  expect(end(root)).toEqual(['next'])
})

test('a lent turn passes to whoever has it, when its owner ends first', () => {
  const { windows, task, add, end } = world(1)
  const root = task('root')
  add(root)
  const child = task('child', { parent: root })
  expect(add(child)).toEqual(['child'])
  const next = task('next')
  expect(add(next)).toEqual([])
  expect(end(root)).toEqual([])
  expect(windows.view(child)?.before).toBeNull()
  expect(end(child)).toEqual(['next'])
})

test('a child of another agent’s task does not wait for one that is parked: each might wait for the other', () => {
  const { task, add } = world(1)
  const [rootA, rootB] = [task('rootA', { agent: 'a' }), task('rootB', { agent: 'b' })]
  expect(add(rootA, rootB)).toEqual(['rootA', 'rootB'])
  const inB = task('inB', { agent: 'b', parent: rootA })
  // rootB runs.
  expect(add(inB)).toEqual([])
  const inA = task('inA', { agent: 'a', parent: rootB })
  expect(add(inA).sort()).toEqual(['inA', 'inB'])
})

test('the size may change; what has its turn keeps it', () => {
  const { windows, limits, task, add, end } = world(3)
  const list = ['a', 'b', 'c', 'd', 'e'].map((id) => task(id))
  expect(add(...list)).toEqual(['a', 'b', 'c'])
  limits.size = 1
  windows.touchAll()
  expect(windows.turns()).toEqual([])
  expect(end(list[0] as Task)).toEqual([])
  expect(end(list[1] as Task)).toEqual([])
  limits.size = 2
  windows.touchAll()
  expect(windows.turns().map((it) => it.id)).toEqual(['d'])
})

test('what was in turn before a restart is seated first, ancestors before their descendants', () => {
  const { windows, task, add, end } = world(1)
  const root = task('root')
  const child = task('child', { parent: root })
  windows.seat(root)
  windows.seat(child)
  const next = task('next')
  expect(add(next)).toEqual([])
  expect(end(child)).toEqual([])
  expect(end(root)).toEqual(['next'])
})

test('one that is tried again is before the others of its key', () => {
  const { windows, task, add, end } = world(1)
  const [a, b, c] = [task('a'), task('b'), task('c')]
  add(a, b, c)
  windows.leave(a)
  windows.wait(a, true)
  expect(windows.turns().map((it) => it.id)).toEqual(['a'])
  expect(end(a)).toEqual(['b'])
})

test('in any order of ends, parkings and deaths at most so many run, and all get their turn', () => {
  let seed = 1
  const random = (): number => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
  for (let round = 0; round < 50; round++) {
    const size = 1 + Math.floor(random() * 3)
    const { windows, task, add, end } = world(size)
    const running = new Set<Task>()
    const all = new Map<string, Task>()
    const left = new Set<Task>()
    const turn = (ids: readonly string[]): void => {
      for (const id of ids) running.add(all.get(id) as Task)
      expect([...running].filter((it) => !isParked(it)).length).toBeLessThanOrEqual(size)
    }
    const make = (parent: Task | null): void => {
      const made = task(`${all.size}`, { parent })
      all.set(made.id, made)
      left.add(made)
      turn(add(made))
    }
    for (let n = 0; n < 10; n++) make(null)
    for (let step = 0; left.size > 0; step++) {
      expect(step).toBeLessThan(10_000)
      const free = [...running].filter((it) => !isParked(it))
      // Somebody can always go on.
      expect(free.length).toBeGreaterThan(0)
      const one = free[Math.floor(random() * free.length)] as Task
      const dice = random()
      if (dice < 0.3 && one.depth < 3 && all.size < 60) for (let n = 0; n < 1 + Math.floor(random() * 3); n++) make(one)
      else if (dice < 0.4) {
        running.delete(one)
        windows.leave(one)
        windows.wait(one, true)
        turn(windows.turns().map((it) => it.id))
      } else {
        running.delete(one)
        left.delete(one)
        turn(end(one))
      }
    }
  }
})
