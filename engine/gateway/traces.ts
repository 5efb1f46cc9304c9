/** OTLP/HTTP JSON of agents: who sent it is overwritten by what the token says, then it goes to egress, without anyone waiting for it. */
import { Agent } from 'node:http'
import { post } from '../post.ts'
import { ATTR } from '../telemetry/names.ts'
import type { Identity } from '../tokens.ts'
import { isTooDeep } from './depth.ts'
import { badRequest } from './http.ts'

const MAX_QUEUED_BYTES = 8_388_608
const POST_TIMEOUT_MS = 3_000
export const MAX_TRACES_BYTES = 1_048_576

export class TraceForwarder {
  readonly #url: URL
  readonly #on: () => boolean
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })
  readonly #queue: { readonly body: Buffer; readonly type: string }[] = []
  readonly #abort = new AbortController()
  #bytes = 0
  #sending = false

  constructor(url: string, on: () => boolean) {
    this.#url = new URL(url)
    this.#on = on
  }

  /** A full queue drops the new batch: the receiver is dead, and the oldest spans are the ones that belong together. */
  forward(body: Buffer, type: string): void {
    if (!this.#on() || this.#bytes + body.length > MAX_QUEUED_BYTES) return
    this.#queue.push({ body, type })
    this.#bytes += body.length
    if (!this.#sending) void this.#send()
  }

  async #send(): Promise<void> {
    this.#sending = true
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#bytes -= next.body.length
      await post(this.#url, next.body, {
        headers: { 'content-type': next.type },
        timeout_ms: POST_TIMEOUT_MS,
        agent: this.#agent,
        signal: this.#abort.signal,
      }).catch(() => {})
    }
    this.#sending = false
  }

  close(): void {
    this.#abort.abort()
    this.#agent.destroy()
  }
}

interface Attribute {
  readonly key?: unknown
  readonly value?: unknown
}

/** An agent names itself in no way that counts: service, instance and project are the token's. */
export function ownTraces(body: Buffer, { agent, replica }: Identity, project: string): Buffer {
  let document: unknown
  try {
    document = JSON.parse(body.toString('utf8'))
  } catch {
    throw badRequest('the body is not OTLP/HTTP JSON')
  }
  const list = (document as { resourceSpans?: unknown } | null)?.resourceSpans
  if (!Array.isArray(list) || isTooDeep(list)) throw badRequest('resourceSpans must be a list (OTLP/HTTP JSON)')
  const own: { readonly [key: string]: string } = {
    [ATTR.serviceName]: agent,
    [ATTR.serviceInstance]: String(replica),
    [ATTR.serviceNamespace]: project,
    [ATTR.project]: project,
  }
  const resourceSpans = list.map((element: unknown) => {
    if (typeof element !== 'object' || element === null || Array.isArray(element)) throw badRequest('resourceSpans must hold objects')
    const { resource } = element as { resource?: { attributes?: unknown } }
    const given = Array.isArray(resource?.attributes) ? (resource.attributes as Attribute[]) : []
    const attributes = given.filter(
      (it) => typeof it === 'object' && it !== null && typeof it.key === 'string' && !Object.hasOwn(own, it.key),
    )
    return {
      ...element,
      resource: {
        ...resource,
        attributes: [...attributes, ...Object.entries(own).map(([key, value]) => ({ key, value: { stringValue: value } }))],
      },
    }
  })
  return Buffer.from(JSON.stringify({ resourceSpans }))
}
