/** dockerode without what it loads and we never call: its import costs every command 25 ms instead of 120. */
import { registerHooks } from 'node:module'
import type Docker from 'dockerode'

/** BuildKit sessions, ssh transport, folders as build contexts. */
const UNUSED: ReadonlySet<string> = new Set(['@grpc/grpc-js', '@grpc/proto-loader', 'ssh2', 'tar-fs', '@balena/dockerignore'])
const IMPORTER = /[\\/](dockerode|docker-modem)[\\/]/

export async function loadDockerode(): Promise<typeof Docker> {
  const hooks = registerHooks({
    resolve: (specifier, context, nextResolve) =>
      UNUSED.has(specifier) && IMPORTER.test(context.parentURL ?? '')
        ? { url: 'node:path', format: 'builtin', shortCircuit: true }
        : nextResolve(specifier, context),
  })
  try {
    return (await import('dockerode')).default
  } finally {
    hooks.deregister()
  }
}
