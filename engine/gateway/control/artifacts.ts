/** What runs have stored. */
import { pipeline } from 'node:stream/promises'
import { DIGEST } from '../artifact-store.ts'
import { refuse } from '../submission.ts'
import { type Call, type Kit, noRun, send, wrong } from './call.ts'

export async function ofRun(kit: Kit, call: Call): Promise<void> {
  const run = call.at['run'] as string
  await kit.whenReady()
  const artifacts = await kit.artifacts.ofRun(run)
  if (artifacts.length === 0 && (await kit.views.status(run)) === null) throw noRun(run)
  send(call, { artifacts })
}

/** The bytes. Their type is what an agent said, so nobody is to act on it: a browser must not show it as a page of ours. */
export async function bytes(kit: Kit, call: Call): Promise<void> {
  const digest = call.at['digest'] as string
  if (!DIGEST.test(digest)) throw wrong(`an artifact is named sha256: and 64 hex digits, got "${digest.slice(0, 100)}"`)
  await kit.whenReady()
  const opened = await kit.artifacts.open(digest)
  if (opened === null) throw refuse(404, 'AG6010', `there is no artifact ${digest}`, 'See `agentctl artifacts ls RUN`.')
  const { file, size } = opened
  call.response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'content-length': size,
    'content-disposition': 'attachment',
    'x-content-type-options': 'nosniff',
    etag: `"${digest}"`,
  })
  // A reader that goes away ends it; the stream closes the file.
  await pipeline(file.createReadStream(), call.response).catch(() => call.response.destroy())
}
