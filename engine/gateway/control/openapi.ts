/** The OpenAPI document of the control API, made from the table of its routes. */
import { COMPONENTS } from './components.ts'
import type { Parameter, Route } from './call.ts'
import { ref } from './schema.ts'

export type OpenApi = { readonly openapi: string; readonly paths: { readonly [path: string]: { readonly [method: string]: unknown } } } & {
  readonly [name: string]: unknown
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'What was sent is wrong; nothing was done.',
  404: 'There is no such thing.',
  408: 'A large body did not come in time.',
  409: 'It is not in a state that allows this.',
  413: 'It is over a limit.',
  429: 'A queue is full.',
  500: 'A bug; see the log of the gateway.',
  503: 'The broker does not answer, or there is no room for more work.',
}

const error = (status: number): unknown => ({
  description: REASONS[status] ?? 'An error.',
  content: { 'application/json': { schema: ref('Error') } },
})

const parameter = (place: 'query' | 'path' | 'header', name: string, { description, ...schema }: Parameter): unknown => ({
  name,
  in: place,
  required: place === 'path',
  description,
  schema,
})

function operation(route: Route): unknown {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)
  const errors = [...new Set([400, ...(route.errors ?? []), 500])].sort((a, b) => a - b)
  return {
    operationId: route.id,
    summary: route.summary,
    ...(route.description === undefined ? {} : { description: route.description }),
    parameters: [
      ...names.map((name) => parameter('path', name, { type: 'string', description: PATH_NAMES[name] ?? name })),
      ...Object.entries(route.query ?? {}).map(([name, it]) => parameter('query', name, it)),
      ...Object.entries(route.headers ?? {}).map(([name, it]) => parameter('header', name, it)),
    ],
    ...(route.body === undefined ? {} : { requestBody: { required: true, content: { 'application/json': { schema: route.body } } } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(route.answers).map(([status, { description, content }]) => [
          status,
          {
            description,
            ...(content === undefined
              ? {}
              : { content: Object.fromEntries(Object.entries(content).map(([type, schema]) => [type, { schema }])) }),
          },
        ]),
      ),
      ...Object.fromEntries(errors.map((status) => [String(status), error(status)])),
    },
  }
}

const PATH_NAMES: Readonly<Record<string, string>> = {
  run: 'Id of a run: run_ and a ULID.',
  task: 'Id of a task: RUN.JOB.ITEM, and for a child its parent’s and a hash.',
  approval: 'Id of an approval.',
  digest: 'sha256: and 64 hex digits.',
}

export function openapi(routes: readonly Route[]): OpenApi {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(route)
  return {
    openapi: '3.1.0',
    info: {
      title: 'agentctl control API',
      version: '1',
      description:
        'Work for the agents of one project. It is reached through the engine, or through `agentctl proxy`, which makes a socket or a loopback port of it.',
    },
    servers: [{ url: 'http://127.0.0.1:PORT', description: '`agentctl proxy --port PORT`; the token that it prints is the bearer token.' }],
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'On a loopback port. A socket asks for none.' } },
      schemas: COMPONENTS,
    },
  }
}
