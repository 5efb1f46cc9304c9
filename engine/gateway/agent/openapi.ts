/** The OpenAPI document of the agent protocol, made from the table of its routes. */
import { PROTOCOL_VERSION } from '../../../spec/protocol.ts'
import { ref } from '../control/schema.ts'
import { ROUTES, type Route } from './routes.ts'
import { SCHEMAS } from './schemas.ts'

const REASONS: Readonly<Record<number, string>> = {
  400: 'bad_request: what was sent is wrong.',
  401: 'unauthorized: there is no token, or it is not of this project.',
  403: 'not_allowed, too_deep, unknown_agent.',
  404: 'not_found: there is no such thing, or it is not yours.',
  408: 'too_slow.',
  409: 'lease_lost: stop the work. session_replaced: your replica has a newer session.',
  413: 'payload_too_large or AG6010: it is over a limit.',
  415: 'AG6010: this type is not taken.',
  416: 'bad_request: the range is outside.',
  429: 'too_many_requests, too_many_children, too_many_approvals, AG6008: wait, and send it again.',
  503: 'unavailable: the broker is away. AG6009: there is no room. Send it again.',
}

const PARAMETERS = {
  lease: { name: 'lease', in: 'query', required: true, description: 'Of the execution.', schema: { type: 'string' } },
  wait_ms: {
    name: 'wait_ms',
    in: 'query',
    required: false,
    description: 'How long the gateway may hold the request; at most 30,000.',
    schema: { type: 'integer', minimum: 0 },
  },
  traceparent: {
    name: 'traceparent',
    in: 'header',
    required: false,
    description: 'A span of yours for the children to stand under.',
    schema: { type: 'string' },
  },
} as const

const content = (schema: string): unknown => {
  if (schema === 'bytes') return { 'application/octet-stream': {} }
  return { 'application/json': { schema: schema === 'any' ? {} : ref(schema) } }
}

const operation = ({ method, path, summary, name, parameters = [], body, answer, errors = [] }: Route): unknown => ({
  operationId: `${method.toLowerCase()} ${path}`
    .replaceAll(/[^a-z]+(\w)/gi, (_, letter: string) => letter.toUpperCase())
    .replaceAll(/\W/g, ''),
  summary,
  parameters: [
    ...(name === undefined
      ? []
      : [{ name: /\{(\w+)\}/.exec(path)?.[1], in: 'path', required: true, description: name, schema: { type: 'string' } }]),
    ...parameters.map((it) => PARAMETERS[it]),
  ],
  ...(body === undefined ? {} : { requestBody: { required: true, content: content(body) } }),
  responses: {
    200: { description: 'Done.', content: content(answer) },
    ...(method === 'GET' && answer === 'bytes' ? { 206: { description: 'The range asked for.', content: content('bytes') } } : {}),
    ...Object.fromEntries(
      [...new Set([400, 401, 403, 429, 503, ...errors])]
        .sort((a, b) => a - b)
        .map((status) => [String(status), { description: REASONS[status], content: content('Error') }]),
    ),
  },
})

const open = (summary: string, schema: string): unknown => ({
  summary,
  security: [],
  responses: { 200: { description: 'Done.', content: content(schema) } },
})

export interface OpenApi {
  readonly openapi: string
  readonly paths: { readonly [path: string]: { readonly [method: string]: unknown } }
  readonly components: { readonly schemas: typeof SCHEMAS; readonly [kind: string]: unknown }
  readonly [name: string]: unknown
}

export function openapi(): OpenApi {
  const paths: Record<string, Record<string, unknown>> = {
    '/v1/health': { get: { operationId: 'getHealth', ...(open('Is the gateway there?', 'Health') as object) } },
    '/v1/openapi.json': { get: { operationId: 'getOpenapi', ...(open('This document.', 'any') as object) } },
  }
  for (const route of ROUTES) (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(route)
  return {
    openapi: '3.1.0',
    info: {
      title: 'agentctl agent protocol',
      version: String(PROTOCOL_VERSION),
      description:
        'How a program in an agent\u2019s container gets work and says what became of it. docs/protocol.md is its prose. Other fields than these may be sent and may come.',
    },
    servers: [{ url: 'http://gateway:7070', description: 'AGENTCTL_GATEWAY' }],
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'The content of /run/secrets/agentctl-token.' } },
      schemas: SCHEMAS,
    },
  }
}
