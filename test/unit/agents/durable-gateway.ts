/** The scripted gateway with a memory: journal, approvals, artifacts and children, as spec/protocol.ts says; what the real one does is shown in test/integration/agents. */
import { createHash } from 'node:crypto'
import {
  type ApprovalView,
  type ArtifactView,
  type JournalEntry,
  type Json,
  type LogLine,
  MAX_BODY_BYTES,
  type TaskView,
} from '../../../spec/protocol.ts'
import { ScriptedGateway, type Seen } from './scripted-gateway.ts'

type Scripted = ReturnType<ScriptedGateway['script']>
const ok = (body: unknown): Scripted => ({ status: 200, body })

export class DurableGateway extends ScriptedGateway {
  /** Of one task: the tests here have one each. */
  readonly journal: Map<string, JournalEntry> = new Map<string, JournalEntry>()
  readonly blobs: Map<string, Buffer> = new Map<string, Buffer>()
  /** lease → what it stored. */
  readonly artifacts: (ArtifactView & { readonly lease: string })[] = []
  readonly approvals: ApprovalView[] = []
  readonly lines: LogLine[] = []
  readonly children: { readonly key: string; readonly agent: string; readonly input: Json }[] = []
  outcome: (input: Json, id: string) => Partial<TaskView> = (input) => ({ status: 'completed', result: input })
  /** Before the usual; null: the usual. */
  first: (seen: Seen) => Scripted = () => null

  override script = (seen: Seen): Scripted => this.first(seen) ?? this.#usual(seen)

  #usual({ path, method, body, raw, headers }: Seen): Scripted {
    const { pathname, searchParams } = new URL(path, 'http://gateway')
    const fields = body as { readonly [name: string]: unknown } | null
    if (pathname === '/v1/journal' && method === 'GET') return ok({ entries: [...this.journal.values()] })
    if (pathname === '/v1/journal') {
      for (const entry of (fields?.['entries'] ?? []) as readonly JournalEntry[])
        if (!this.journal.has(entry.key)) this.journal.set(entry.key, entry)
      return ok({ ok: true })
    }
    if (pathname.startsWith('/v1/artifacts/') && method === 'PUT') {
      const digest = `sha256:${createHash('sha256').update(raw).digest('hex')}`
      this.blobs.set(digest, raw)
      const view = {
        name: decodeURIComponent(pathname.slice(14)),
        digest,
        size: raw.length,
        type: headers['content-type'] ?? '',
        task: 'run_x.job',
      }
      this.artifacts.push({ ...view, lease: searchParams.get('lease') ?? '' })
      return ok(view)
    }
    if (pathname.startsWith('/v1/artifacts/')) {
      const blob = this.blobs.get(decodeURIComponent(pathname.slice(14)))
      return blob === undefined ? { status: 404, body: { error: { code: 'not_found', message: 'there is no such artifact' } } } : ok(blob)
    }
    if (pathname === '/v1/approvals') {
      const { key, message, data } = fields as { readonly key: string; readonly message: string; readonly data: Json }
      const known = this.approvals.find((it) => it.key === key)
      if (known !== undefined) return ok(known)
      const rest = { task: 'run_x.job', agent: 'worker', status: 'pending', created_at: '', decided_at: null, comment: null } as const
      const view: ApprovalView = { id: `approval-${this.approvals.length + 1}`, key, message, data, ...rest }
      this.approvals.push(view)
      return ok(view)
    }
    if (pathname.startsWith('/v1/approvals/')) return ok(this.approvals.find((it) => it.id === pathname.slice(14)))
    if (pathname === '/v1/logs') {
      const lines = (fields?.['lines'] ?? []) as readonly LogLine[]
      if (lines.length > 1_000) return { status: 400, body: { error: { code: 'bad_request', message: 'too many lines' } } }
      this.lines.push(...lines)
      return ok({ ok: true })
    }
    if (pathname === '/v1/delegate') {
      const many = fields?.['tasks'] as readonly { readonly key: string; readonly agent: string; readonly input: Json }[] | undefined
      const ids = (many ?? [fields as never]).map((child) => this.#child(child))
      return ok(many === undefined ? { task: ids[0] } : { tasks: ids })
    }
    if (pathname === '/v1/await') {
      const tasks = ((fields?.['tasks'] ?? []) as readonly string[]).map((id) => this.#view(id))
      if (JSON.stringify(tasks).length > MAX_BODY_BYTES) return { status: 413, body: { error: { code: 'payload_too_large', message: '' } } }
      return ok({ done: tasks.every(({ status }) => status !== 'running'), tasks })
    }
    if (pathname.startsWith('/v1/tasks/')) return ok(this.#view(pathname.slice(10)))
    return null
  }

  #child(child: { readonly key: string; readonly agent: string; readonly input: Json }): string {
    const known = this.children.findIndex(({ key }) => key === child.key)
    return `child-${known >= 0 ? known : this.children.push({ key: child.key, agent: child.agent, input: child.input }) - 1}`
  }

  #view(id: string): TaskView {
    const { agent = '', input = null } = this.children[Number(id.slice(6))] ?? {}
    return {
      id,
      agent,
      type: 'task',
      status: 'running',
      attempts: 1,
      result: null,
      error: null,
      trace_id: null,
      ...this.outcome(input, id),
    }
  }

  decide(key: string, status: 'approved' | 'rejected', comment: string | null): void {
    const index = this.approvals.findIndex((it) => it.key === key)
    const view = this.approvals[index]
    if (view !== undefined) this.approvals[index] = { ...view, status, comment }
  }
}
