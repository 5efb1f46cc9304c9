/** What a run's tasks have stored is part of what it came to. */
import type { ArtifactView, RunView } from '../../spec/protocol.ts'
import type { ControlClient } from '../client/client.ts'
import { AgentctlError } from '../errors.ts'

export type StoredRun = RunView & { readonly artifacts?: readonly ArtifactView[] }

export async function withArtifacts(control: ControlClient, view: RunView): Promise<StoredRun> {
  // A gateway of an earlier version has no such route.
  const artifacts = await control.artifacts(view.run).catch((error: unknown) => {
    if (error instanceof AgentctlError && error.code === 'AG6001') return []
    throw error
  })
  return artifacts.length === 0 ? view : { ...view, artifacts }
}
