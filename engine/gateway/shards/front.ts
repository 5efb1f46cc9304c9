/**
 * The first of several gateways speaks for all: its control API finds the one that has what is asked for, or asks all and answers as
 * one. It holds nothing of theirs but where runs were found. Who does not answer is named (503): a list without its part would be wrong.
 */
import { createHash } from 'node:crypto'
import type { ApprovalView, ReplicaView } from '../../../spec/protocol.ts'
import * as approvals from '../control/approvals.ts'
import { type Call, type Kit, limitOf, type Route, send, waitOf } from '../control/call.ts'
import * as dlq from '../control/dlq.ts'
import * as gateway from '../control/gateway.ts'
import type { RunPage } from '../control/listing.ts'
import * as runs from '../control/runs.ts'
import { Turns } from '../dedup.ts'
import { runOf } from '../run-record.ts'
import { newRunId } from '../../ulid.ts'
import type { Find, Kind } from './find.ts'
import { mergeApprovals, mergeHealth, mergeLetters, mergeReplicas, mergeRuns, type ShardHealth } from './merge.ts'
import { ANSWER_MS, type Peer } from './peers.ts'

/** A run's gateway is asked for once; 10,000 of these are a megabyte. */
const MAX_KNOWN = 10_000
/** The engine's healthcheck gives the whole answer two seconds. */
const HEALTH_MS = 1_000

export interface FrontOptions {
  readonly peers: readonly Peer[]
  readonly find: Find
  readonly health: () => ShardHealth
}

/** Beside submit. They get an id here, so that one that is sent again, on another socket, is the same run. */
const MAKES_RUN: ReadonlySet<string> = new Set(['retryRun', 'retryDeadLetter'])

type Ours = (kit: Kit, route: Route, call: Call) => Promise<void>

export class Front {
  readonly #peers: readonly Peer[]
  readonly #find: Find
  readonly #health: () => ShardHealth
  /** run → its gateway; 0 is this one. */
  readonly #known = new Map<string, number>()
  readonly #turns = new Turns()
  readonly #merged: { readonly [route: string]: Ours } = {
    submit: (kit, route, call) => this.#submit(kit, route, call),
    listRuns: (kit, _, call) => this.#listRuns(kit, call),
    listDeadLetters: async (kit, _, call) =>
      send(call, mergeLetters([await dlq.pageOf(kit, call), ...(await this.#all<dlq.LetterPage>(call))], limitOf(call))),
    listApprovals: async (kit, _, call) => {
      const others = await this.#all<{ readonly approvals: readonly ApprovalView[] }>(call)
      send(call, { approvals: mergeApprovals([await approvals.listOf(kit, call), ...others.map((it) => it.approvals)]) })
    },
    replicas: (kit, _, call) => this.#replicas(kit, call),
    health: async (_kit, _, call) => {
      const ask = (peer: Peer): Promise<ShardHealth | null> =>
        peer.ask<ShardHealth>({ path: '/health', timeout_ms: HEALTH_MS }).catch(() => null)
      const others = await Promise.all(this.#peers.map(async (peer) => ({ name: peer.name, health: await ask(peer) })))
      send(call, mergeHealth(this.#health(), others))
    },
    // Who misses it says so in the list of replicas, and is told again.
    prove: async (kit, _, call) => {
      const body = JSON.stringify(call.body)
      await Promise.allSettled(this.#peers.map((peer) => peer.ask({ method: 'POST', path: '/v1/replicas/proofs', body })))
      await gateway.prove(kit, call)
    },
    // A hint: who misses it looks for itself within a second.
    reload: async (kit, _, call) => {
      const body = '{}'
      await Promise.allSettled(this.#peers.map((peer) => peer.ask({ method: 'POST', path: '/v1/reload', body })))
      await gateway.reload(kit, call)
    },
  }

  constructor({ peers, find, health }: FrontOptions) {
    this.#peers = peers
    this.#find = find
    this.#health = health
  }

  /** false: it is for this gateway alone. */
  async handle(kit: Kit, route: Route, call: Call): Promise<boolean> {
    const merged = this.#merged[route.id]
    if (merged !== undefined) {
      await merged(kit, route, call)
      return true
    }
    const owner = await this.#ownerFor(call)
    return await this.#give(owner, route, MAKES_RUN.has(route.id) ? { ...call, body: { id: newRunId(), ...call.body } } : call)
  }

  close(): void {
    for (const peer of this.#peers) peer.close()
  }

  async #ownerFor({ at }: Call): Promise<number> {
    const { run, task, approval, digest } = at
    if (run !== undefined) return await this.#ownerOf(run)
    if (task !== undefined) return await this.#ownerOf(runOf(task))
    if (approval !== undefined) return (await this.#where('approval', approval))?.gateway ?? 0
    if (digest !== undefined) return (await this.#where('artifact', digest))?.gateway ?? 0
    return 0
  }

  async #give(gateway: number, route: Route, call: Call): Promise<boolean> {
    if (gateway === 0) return false
    await (this.#peers[gateway - 1] as Peer).pass(route, call)
    return true
  }

  /** 0 also for a run that nobody has: this gateway then says so. */
  async #ownerOf(run: string): Promise<number> {
    const known = this.#known.get(run)
    if (known !== undefined) return known
    const found = await this.#where('run', run)
    if (found === null) return 0
    this.#remember(run, found.gateway)
    return found.gateway
  }

  #remember(run: string, gateway: number): void {
    const [oldest] = this.#known.size >= MAX_KNOWN ? this.#known.keys() : []
    if (oldest !== undefined) this.#known.delete(oldest)
    this.#known.set(run, gateway)
  }

  /** Whoever has it is enough, also when another does not answer; that nobody has it, all must say. */
  async #where(kind: Kind, name: string): Promise<{ readonly gateway: number; readonly found: string } | null> {
    const here = await this.#find(kind, name)
    if (here !== null) return { gateway: 0, found: here }
    const path = `/find?${new URLSearchParams({ kind, name }).toString()}`
    const asked = await Promise.allSettled(this.#peers.map((peer) => peer.ask<{ readonly found: string | null }>({ path })))
    for (const [index, it] of asked.entries())
      if (it.status === 'fulfilled' && it.value.found !== null) return { gateway: index + 1, found: it.value.found }
    for (const it of asked) if (it.status === 'rejected') throw it.reason
    return null
  }

  /** One after the other for each key and id, so that two that come at once find one another. */
  async #submit(kit: Kit, route: Route, call: Call): Promise<void> {
    const { id = newRunId(), dedup_key } = call.body as { readonly id?: string; readonly dedup_key?: string }
    const named: Call = { ...call, body: { ...call.body, id } }
    const place = async (): Promise<void> => {
      const known =
        (dedup_key === undefined ? null : await this.#where('key', dedup_key)) ??
        (call.body['id'] === undefined ? null : await this.#where('run', id))
      const gateway = known?.gateway ?? shardOf(dedup_key ?? id, this.#peers.length + 1)
      if (!(await this.#give(gateway, route, named))) await route.handle(kit, named)
    }
    const inTurn = (): Promise<void> => this.#turns.take(`id ${id}`, place)
    await (dedup_key === undefined ? inTurn() : this.#turns.take(`key ${dedup_key}`, inTurn))
  }

  async #listRuns(kit: Kit, call: Call): Promise<void> {
    const before = call.url.searchParams.get('before')
    const created = before === null ? null : ((await this.#where('run', before))?.found ?? null)
    const others = await this.#all<RunPage>(call, created === null ? {} : { [runs.CREATED_HEADER]: created })
    send(call, mergeRuns([await runs.pageOf(kit, call, created), ...others], limitOf(call)))
  }

  async #replicas(kit: Kit, call: Call): Promise<void> {
    const wait = waitOf(call)
    const path = call.url.pathname + call.url.search
    const others = this.#peers.map((peer) =>
      peer.ask<{ readonly replicas: readonly ReplicaView[] }>({ path, timeout_ms: wait + HEALTH_MS, signal: call.signal }).then(
        (it) => it.replicas,
        () => null,
      ),
    )
    send(call, { replicas: mergeReplicas(await Promise.all([gateway.replicasOf(kit, call), ...others])) })
  }

  #all<T>({ url, signal }: Call, headers: { readonly [name: string]: string } = {}): Promise<readonly T[]> {
    const path = url.pathname + url.search
    return Promise.all(this.#peers.map((peer) => peer.ask<T>({ path, headers, signal, timeout_ms: ANSWER_MS })))
  }
}

/** Evenly, and the same for the same name as long as there are as many. */
export const shardOf = (name: string, shards: number): number => createHash('sha256').update(name).digest().readUInt32BE() % shards
