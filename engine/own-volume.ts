import { packEntries } from './archive.ts'
import { LABEL } from './names.ts'
import type { ContainerRuntime, ContainerSpec } from './ports.ts'

/** The volume's parent in the container: a PUT to the mount point itself would leave the mount's own owner alone. */
const PARENT = '/volumes'

/** A PUT into a created container sets a volume's owner on any engine and runs nothing; the container must have a writable root, so it is one of its own. */
export async function ownVolume(runtime: ContainerRuntime, project: string, { volume, image, uid, gid }: { volume: string; image: string; uid: number; gid: number }, signal: AbortSignal): Promise<void> {
  const name = `${volume}-owner`
  const spec: ContainerSpec = {
    name, kind: 'secrets', image, entrypoint: null, command: ['true'], environment: {}, labels: { [LABEL.project]: project, [LABEL.kind]: 'secrets', [LABEL.replica]: '0' },
    user: '65534:65534', working_dir: null, stop_grace_s: 0, healthcheck: null, endpoints: [], extra_hosts: {}, dns: [], ports: [], binds: [],
    volumes: [{ source: volume, target: `${PARENT}/own`, read_only: false }], tmpfs: [], read_only: false, cap_drop: ['ALL'], cap_add: [], no_new_privileges: true,
    seccomp: null, masked_paths: null, readonly_paths: null, sysctls: {}, ulimits: [], mem_limit: 16_777_216, cpus: 0.1, pids_limit: 8, oom_score_adj: 0, init: false, restart: 'no',
  }
  // One of an earlier, interrupted command may still be there.
  await runtime.remove(name, signal)
  await runtime.createContainer(spec, signal)
  try {
    await runtime.putArchive(name, PARENT, packEntries([{ path: 'own/', mode: 0o755, uid, gid }]), signal)
  } finally {
    await runtime.remove(name, AbortSignal.timeout(30_000))
  }
}
