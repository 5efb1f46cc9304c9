/** For tests: text → what `load` says, in one line per problem. */
import type { Project } from '../../../spec/model.ts'
import { type Loaded, load } from '../../../spec/load.ts'

export const FILE = '/home/user/demo/agents.yaml'

export function loadText(text: string, environment: { [name: string]: string } = { HOME: '/home/user' }, projectName?: string): Loaded {
  return load({ files: [FILE], readFile: () => text, environment, ...(projectName === undefined ? {} : { projectName }) })
}

export const problems = (loaded: Loaded): string[] =>
  loaded.diagnostics.map((each) => `${each.place?.line}:${each.place?.column} ${each.code} ${each.message}`)

export function project(text: string, environment?: { [name: string]: string }): Project {
  const loaded = loadText(text, environment)
  if (loaded.project === null) throw new Error(problems(loaded).join('\n'))
  return loaded.project
}
