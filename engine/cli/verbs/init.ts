import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { AgentctlError, EXIT } from '../../errors.ts'
import { givenName } from '../project.ts'
import { FILE_NAMES } from '../project.ts'
import { usage } from '../failure.ts'
import { starter } from '../starter.ts'
import type { Run } from '../verb.ts'

interface InitView {
  readonly project: string
  readonly folder: string
  readonly files: readonly string[]
}

export const init: Run = async ({ io, globals, out, progress }, { args: [given = '.'] }) => {
  const folder = resolve(io.cwd, globals.project_directory ?? '.', given)
  const name = givenName(globals, io.environment) ?? nameOf(folder)
  const files = starter(name)
  const taken = [...FILE_NAMES, ...files.map((it) => it.path)].find((it) => existsSync(join(folder, it)))
  if (taken !== undefined)
    throw usage(`${join(folder, taken)} exists; init overwrites nothing`, 'Choose another folder: agentctl init FOLDER.')
  try {
    for (const { path, content } of files) {
      mkdirSync(dirname(join(folder, path)), { recursive: true })
      writeFileSync(join(folder, path), content, { flag: 'wx' })
    }
  } catch (cause) {
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    throw new AgentctlError('AG1001', `cannot write the starter project in ${folder} (${why})`, {
      hint: 'Choose a folder that you may write to.',
      cause,
    })
  }
  const view: InitView = { project: name, folder, files: files.map((it) => it.path) }
  await out.print(view, (it) => it.files.map((path) => join(relative(io.cwd, folder), path)).join('\n'))
  const there = relative(io.cwd, folder)
  progress.note(`Next: ${there === '' ? '' : `cd ${there} && `}agentctl up -d && agentctl run hello`)
  return EXIT.done
}

function nameOf(folder: string): string {
  const name = basename(folder)
    .toLowerCase()
    .replaceAll(/[^a-z0-9_-]+/g, '-')
    .replace(/^[^a-z0-9]+|-+$/g, '')
    .slice(0, 63)
  return name === '' ? 'agents' : name
}
