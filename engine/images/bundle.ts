/** The programs of the images as single files: what a container loads, and all that it loads. */
import { cpSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'esbuild'
import { findPackageRoot } from './package-root.ts'

export interface Program {
  readonly entry: string
  readonly file: string
}

export const ENGINE_PROGRAMS: readonly Program[] = [
  { entry: 'engine/gateway/main.ts', file: 'gateway.mjs' },
  { entry: 'engine/egress/main.ts', file: 'egress.mjs' },
  { entry: 'engine/controller/main.ts', file: 'controller.mjs' },
]
export const AGENT_PROGRAMS: readonly Program[] = [{ entry: 'agents/main.ts', file: 'agent.mjs' }]

export const DOCKERFILE_FOLDER = 'engine/images'

/** CommonJS inside an ES module still wants `require` and `__dirname`. */
const COMMONJS_BANNER = [
  "import { createRequire as agentctlCreateRequire } from 'node:module'",
  "import { dirname as agentctlDirname } from 'node:path'",
  "import { fileURLToPath as agentctlFileURLToPath } from 'node:url'",
  'const require = agentctlCreateRequire(import.meta.url)',
  'const __filename = agentctlFileURLToPath(import.meta.url)',
  'const __dirname = agentctlDirname(__filename)',
].join('\n')

/** dockerode loads its BuildKit session, its ssh transport and its tar packer at import; we use none, and ssh2 has native parts. */
const UNUSED = /^(@grpc\/grpc-js|@grpc\/proto-loader|protobufjs|ssh2|tar-fs|@balena\/dockerignore)$/
const withoutUnused: Plugin = {
  name: 'without-unused',
  setup(build) {
    build.onResolve({ filter: UNUSED }, ({ path, importer }) =>
      /[\\/](dockerode|docker-modem)[\\/]/.test(importer) ? { path, namespace: 'unused' } : undefined,
    )
    build.onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents: 'module.exports = {}', loader: 'js' }))
  },
}

/** Writes `programs` into `outDir`; esbuild comes from the checkout's devDependencies. */
export async function bundlePrograms(programs: readonly Program[], outDir: string, root: string): Promise<void> {
  const { build } = await import('esbuild')
  mkdirSync(outDir, { recursive: true })
  await Promise.all(
    programs.map(({ entry, file }) =>
      build({
        entryPoints: [join(root, entry)],
        outfile: join(outDir, file),
        absWorkingDir: root,
        bundle: true,
        platform: 'node',
        format: 'esm',
        target: 'node24',
        // Names stay, so that a stack trace from a container can be read.
        minifyWhitespace: true,
        minifySyntax: true,
        legalComments: 'none',
        logLevel: 'silent',
        // The agent has no CommonJS in it, and every byte that it loads is paid per replica.
        ...(file === 'agent.mjs' ? {} : { banner: { js: COMMONJS_BANNER } }),
        plugins: [withoutUnused],
      }),
    ),
  )
}

/** All that the images are made of, for a package without sources: the bundles and the Dockerfiles. Called at prepack. */
export async function buildBundles(outDir: string, root: string = findPackageRoot()): Promise<void> {
  await bundlePrograms([...ENGINE_PROGRAMS, ...AGENT_PROGRAMS], outDir, root)
  for (const name of readdirSync(join(root, DOCKERFILE_FOLDER))) {
    if (name.endsWith('.Dockerfile')) cpSync(join(root, DOCKERFILE_FOLDER, name), join(outDir, name))
  }
}
