/** A real project on the real engine, in process: for tests that look inside and break things. The CLI has scenarios of its own. */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type ControlClient, openControl } from '../../engine/control.ts'
import { DiagnosticsError } from '../../engine/errors.ts'
import { packageImages } from '../../engine/images/images.ts'
import type { ContainerRuntime, ExecResult } from '../../engine/ports.ts'
import type { Outcome } from '../../engine/progress.ts'
import { prepareUp } from '../../engine/up.ts'
import { prepareDown, type VerbContext } from '../../engine/verbs.ts'
import { load } from '../../spec/load.ts'
import type { RunView, SubmitRequest } from '../../spec/protocol.ts'
import { cleanup, runtime as sharedRuntime, uniqueProject } from './docker.ts'

export interface Stack extends AsyncDisposable {
  readonly name: string
  readonly folder: string
  readonly runtime: ContainerRuntime
  readonly control: ControlClient
  readonly ctx: VerbContext
  /** Write files, then bring the project up (again). */
  up(files?: { readonly [path: string]: string }): Promise<Outcome>
  exec(container: string, command: readonly string[]): Promise<ExecResult & { readonly text: string }>
  /** `node -e` in the container; gives what it printed. */
  node(container: string, script: string): Promise<string>
  submit(request: SubmitRequest): Promise<string>
  /** Waits for the end of the run. */
  ended(run: string, timeout_ms?: number): Promise<RunView>
}

export async function stack(
  prefix: string,
  files: { readonly [path: string]: string },
  environment: { readonly [name: string]: string } = {},
): Promise<Stack> {
  const runtime = await sharedRuntime()
  const name = uniqueProject(prefix)
  const folder = mkdtempSync(join(tmpdir(), 'agentctl-test-'))
  chmodSync(folder, 0o755)
  const abort = new AbortController()
  const ctx: VerbContext = { runtime, signal: abort.signal, emit: () => undefined, environment: { ...process.env, ...environment } }
  const control = await openControl(runtime, name, abort.signal)
  const write = (all: { readonly [path: string]: string }): void => {
    for (const [path, content] of Object.entries(all)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true, mode: 0o755 })
      writeFileSync(join(folder, path), content, { mode: 0o644 })
    }
  }
  const self: Stack = {
    name,
    folder,
    runtime,
    control,
    ctx,
    async up(changed = {}) {
      write(changed)
      const loaded = load({
        files: [join(folder, 'agents.yaml')],
        readFile: (path) => readFileSync(path, 'utf8'),
        environment: ctx.environment,
        projectName: name,
      })
      if (loaded.project === null) throw new DiagnosticsError(loaded.diagnostics)
      const outcome = await (
        await prepareUp(ctx, loaded.project, { images: packageImages(runtime), version: '0.0.0-test', places: loaded.places })
      ).apply()
      if (!outcome.ok) throw new Error(`up failed: ${JSON.stringify(outcome.failures, null, 1)}`)
      return outcome
    },
    async exec(container, command) {
      const result = await runtime.exec(`${name}-${container}`, command, { timeout_ms: 60_000 })
      return { ...result, text: result.stdout.toString('utf8').trim() }
    },
    async node(container, script) {
      const result = await runtime.exec(`${name}-${container}`, ['node', '-e', script], { timeout_ms: 60_000 })
      if (result.exit_code !== 0) throw new Error(`node in ${container} exited ${result.exit_code}: ${result.stderr.toString('utf8')}`)
      return result.stdout.toString('utf8').trim()
    },
    submit: async (request) => (await control.submit(request)).run,
    async ended(run, timeout_ms = 60_000) {
      const until = Date.now() + timeout_ms
      for (;;) {
        const view = await control.run(run, 5_000)
        if (!['queued', 'running'].includes(view.status)) return view
        if (Date.now() > until) throw new Error(`run ${run} has not ended within ${timeout_ms} ms: ${JSON.stringify(view)}`)
      }
    },
    async [Symbol.asyncDispose]() {
      control.close()
      await (await prepareDown({ ...ctx, signal: AbortSignal.timeout(120_000) }, name, { volumes: true, timeout_s: 1 }))
        .apply()
        .catch(() => undefined)
      abort.abort()
      await cleanup(name)
      rmSync(folder, { recursive: true, force: true })
    },
  }
  write(files)
  try {
    await self.up()
  } catch (error) {
    if (process.env['KEEP_FAILED'] !== '1') await self[Symbol.asyncDispose]()
    throw error
  }
  return self
}
