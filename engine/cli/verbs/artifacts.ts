import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ArtifactView } from '../../../spec/protocol.ts'
import { CODES } from '../../../spec/codes.ts'
import { AgentctlError, EXIT } from '../../errors.ts'
import { checkFlags, runOf, wordOf } from '../actions.ts'
import { usage } from '../failure.ts'
import type { Session } from '../session.ts'
import { flag, type Run, value } from '../verb.ts'
import { renderArtifacts, sizeText } from '../views/work.ts'

const WORDS = {
  ls: { min: 1, max: 1, what: 'the id of a run', hint: '`agentctl runs ls` lists them.' },
  get: { min: 2, max: 2, what: 'the id of a run and the name (or digest) of an artifact', hint: '`agentctl artifacts ls RUN` lists them.' },
} as const

export const artifacts: Run = async (session, call) => {
  const { word, args } = wordOf('artifacts', call.args, WORDS)
  checkFlags('artifacts', word, call, { q: ['ls'], output: ['get'] })
  const output = value(call, 'output')
  if (output === '-' && session.out.json) throw usage('-o - writes the bytes to stdout, which --format json has for its document')
  const run = runOf(args[0] ?? '')
  const { control } = await session.control(await session.project())
  const found = await control.artifacts(run)
  if (word === 'ls') {
    await session.out.print({ run, artifacts: found }, (view) =>
      flag(call, 'q') || session.globals.quiet
        ? view.artifacts.map((it) => it.name).join('\n')
        : renderArtifacts(view.artifacts) || 'no artifacts',
    )
    return EXIT.done
  }
  const artifact = choose(run, args[0] ?? '', args[1] ?? '', found)
  const bytes = await control.artifact(artifact.digest, { signal: session.signal })
  if (output === '-') {
    await pipeline(received(bytes, artifact), checked(artifact), session.io.stdout, { end: false })
    return EXIT.done
  }
  const target = resolve(session.io.cwd, output ?? basename(artifact.name))
  await save(bytes, artifact, target, session)
  await session.out.print({ ...artifact, file: target }, (view) => `${view.file}  ${sizeText(view.size)}`)
  return EXIT.done
}

/** A name may be given by several tasks of the run; RUN.JOB.ITEM in place of RUN says which. */
function choose(run: string, place: string, name: string, all: readonly ArtifactView[]): ArtifactView {
  const found = all.filter(
    (it) => (it.name === name || it.digest === name) && (place === run || it.task === place || it.task.startsWith(`${place}.`)),
  )
  const [first] = found
  if (first === undefined)
    throw new AgentctlError('AG6010', `run ${run} has no artifact "${name}"`, {
      hint: all.length === 0 ? 'It has none at all.' : `It has: ${[...new Set(all.map((it) => it.name))].slice(0, 20).join(', ')}.`,
    })
  if (found.some((it) => it.digest !== first.digest))
    throw usage(`${found.length} tasks of run ${run} have stored "${name}"`, `Name the task: agentctl artifacts get ${first.task} ${name}`)
  return first
}

/** Whole or not at all: it is written beside its place, and moved there once its hash is right. */
async function save(bytes: AsyncIterable<Buffer>, artifact: ArtifactView, target: string, session: Session): Promise<void> {
  const part = `${target}.part-${process.pid}`
  try {
    await pipeline(received(bytes, artifact), checked(artifact), createWriteStream(part, { flags: 'wx' }), { signal: session.signal })
    await rename(part, target)
  } catch (error) {
    await rm(part, { force: true })
    if (error instanceof AgentctlError || session.signal.aborted || !(error instanceof Error && 'code' in error)) throw error
    throw new AgentctlError('AG7001', `${target} cannot be written: ${error.message}`, {
      hint: 'Name another file with -o.',
      exit: EXIT.usage,
    })
  }
}

/** What breaks off on the way is not the file's fault, nor ours. */
async function* received(bytes: AsyncIterable<Buffer>, { digest }: ArtifactView): AsyncGenerator<Buffer> {
  try {
    yield* bytes
  } catch (cause) {
    throw new AgentctlError('AG5001', `the gateway broke off in the middle of the artifact ${digest}`, {
      hint: `Get it again. ${CODES.AG5001.fix}`,
      cause,
    })
  }
}

function checked({ digest, size }: ArtifactView): Transform {
  const hash = createHash('sha256')
  let seen = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      seen += chunk.length
      done(null, chunk)
    },
    flush(done) {
      if (seen === size && `sha256:${hash.digest('hex')}` === digest) return done()
      done(new AgentctlError('AG5001', `the artifact ${digest} came with ${seen} of ${size} bytes, or changed`, { hint: 'Try again.' }))
    },
  })
}
