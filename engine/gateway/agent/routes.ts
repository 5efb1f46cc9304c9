/** The agent protocol's table of routes. What answers, docs/openapi-agent.json and `GET /v1/openapi.json` all come from it. */
import type { Handler } from './call.ts'
import { delegate, task } from './delegation.ts'
import { complete, fail, heartbeat, lease } from './leasing.ts'
import { progress, traces } from './telling.ts'

export type Method = 'GET' | 'POST' | 'PUT'
export interface Route {
  readonly method: Method
  /** May end with one {NAME}, which stands for the rest of the path. */
  readonly path: string
  readonly handle: Handler
}

export const ROUTES: readonly Route[] = [
  { method: 'POST', path: '/v1/lease', handle: lease },
  { method: 'POST', path: '/v1/complete', handle: complete },
  { method: 'POST', path: '/v1/fail', handle: fail },
  { method: 'POST', path: '/v1/heartbeat', handle: heartbeat },
  { method: 'POST', path: '/v1/progress', handle: progress },
  { method: 'POST', path: '/v1/delegate', handle: delegate },
  { method: 'GET', path: '/v1/tasks/{ID}', handle: task },
  { method: 'POST', path: '/v1/traces', handle: traces },
]

const fixed = new Map<string, Route[]>()
const open: { readonly prefix: string; readonly route: Route }[] = []
for (const route of ROUTES) {
  const at = route.path.indexOf('{')
  if (at < 0) fixed.set(route.path, [...(fixed.get(route.path) ?? []), route])
  else open.push({ prefix: route.path.slice(0, at), route })
}

/** The routes of a path, by method; empty: there is no such path. `rest`: what stands for its {NAME}, still escaped. */
export function routesAt(path: string): { readonly routes: readonly Route[]; readonly rest: string } {
  const known = fixed.get(path)
  if (known !== undefined) return { routes: known, rest: '' }
  const routes = open.filter(({ prefix }) => path.startsWith(prefix))
  return { routes: routes.map((it) => it.route), rest: path.slice(routes[0]?.prefix.length ?? 0) }
}
