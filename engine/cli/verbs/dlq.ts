import type { DeadLetterSummary, Json } from '../../../spec/protocol.ts'
import type { ControlClient, DeadLetterFilter } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import { checkFlags, limitOf, wordOf } from '../actions.ts'
import { parseJson } from '../arguments.ts'
import { editJson } from '../edit.ts'
import { usage } from '../failure.ts'
import { exitOf, stay } from '../follow.ts'
import type { Session } from '../session.ts'
import { type Call, flag, type Run, value } from '../verb.ts'
import { renderDeadLetter, renderDeadLetters } from '../views/dlq.ts'
import { renderTask } from '../views/work.ts'

const ONE = { min: 1, max: 1, what: 'the id of a dead letter', hint: '`agentctl dlq ls` lists them.' } as const
const WORDS = { ls: { min: 0, max: 0, what: '' }, show: ONE, retry: ONE, drop: { ...ONE, min: 0, max: 1_000 } } as const
const RETRY = ['retry'] as const
const FLAGS = { agent: ['ls', 'drop'], limit: ['ls'], q: ['ls'], edit: RETRY, input: RETRY, detach: RETRY, all: ['drop'] } as const
const PAGE = 1_000

export const dlq: Run = async (session, call) => {
  const { word, args } = wordOf('dlq', call.args, WORDS)
  checkFlags('dlq', word, call, FLAGS)
  const [task = ''] = args
  switch (word) {
    case 'ls':
      return await list(session, call)
    case 'show': {
      const { control } = await open(session)
      await session.out.print(await control.deadLetter(task), renderDeadLetter)
      return EXIT.done
    }
    case 'retry':
      return await retry(session, call, task)
    case 'drop':
      return await drop(session, call, args)
  }
}

async function open(session: Session): Promise<{ readonly project: string; readonly control: ControlClient }> {
  const project = await session.project()
  return { project, control: (await session.control(project)).control }
}

const agentOf = (call: Call): DeadLetterFilter => {
  const agent = value(call, 'agent')
  return agent === null ? {} : { agent }
}

async function* pages(control: ControlClient, filter: DeadLetterFilter, limit: number): AsyncGenerator<readonly DeadLetterSummary[]> {
  let before: string | null = null
  for (let left = limit; left > 0; ) {
    const page = await control.deadLetters({ ...filter, limit: Math.min(left, PAGE), ...(before === null ? {} : { before }) })
    yield page.tasks
    left -= page.tasks.length
    before = page.next
    if (before === null) return
  }
}

async function list(session: Session, call: Call): Promise<number> {
  const limit = limitOf(call)
  const { control } = await open(session)
  const tasks: DeadLetterSummary[] = []
  for await (const page of pages(control, agentOf(call), limit)) tasks.push(...page)
  await session.out.print({ tasks }, (view) =>
    flag(call, 'q') || session.globals.quiet ? view.tasks.map((it) => it.id).join('\n') : renderDeadLetters(view.tasks),
  )
  return EXIT.done
}

async function retry(session: Session, call: Call, task: string): Promise<number> {
  const [text, edit, detach] = [value(call, 'input'), flag(call, 'edit'), flag(call, 'detach')]
  if (text !== null && edit) throw usage('give either --input or --edit')
  if (edit && (session.io.stdin.isTTY !== true || session.io.stdout.isTTY !== true))
    throw usage('--edit needs a terminal', 'Give the input with --input JSON.')
  let input: Json | undefined = text === null ? undefined : parseJson('--input', text)
  const { project, control } = await open(session)
  if (edit) {
    const before = (await control.deadLetter(task)).input
    const edited = await editJson(before, session.io, `input of ${task}`)
    if (edited === null) {
      session.progress.note('nothing was changed, so nothing was submitted')
      return EXIT.done
    }
    input = edited.value
  }
  const { run } = await control.retryDeadLetter(task, input === undefined ? {} : { input })
  const view = await stay(session, { project, control }, run, { detach })
  const made = await control.task(view.jobs[0]?.id ?? `${run}.task.0`)
  await session.out.print(made, detach ? (it) => it.id : renderTask)
  return detach ? EXIT.done : exitOf(view)
}

async function drop(session: Session, call: Call, tasks: readonly string[]): Promise<number> {
  const all = flag(call, 'all')
  if (all === tasks.length > 0) throw usage('dlq drop expects ids of dead letters, or --all', '`agentctl dlq ls` lists them.')
  if (!all && value(call, 'agent') !== null) throw usage('dlq drop takes --agent with --all, not with ids')
  const { control } = await open(session)
  const dropped: string[] = []
  const one = async (id: string): Promise<void> => {
    await control.dropDeadLetter(id)
    dropped.push(id)
  }
  if (all) {
    const ids: string[] = []
    for await (const page of pages(control, agentOf(call), Number.POSITIVE_INFINITY)) ids.push(...page.map((it) => it.id))
    for (const id of ids) await one(id)
  } else for (const id of tasks) await one(id)
  await session.out.print({ dropped }, (view) => (all ? `${view.dropped.length} dropped` : view.dropped.join('\n')))
  return EXIT.done
}
