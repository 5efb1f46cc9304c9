// `npm run build`, and what `npm pack` runs first: dist/ with the compiled sources, the files that they read, and the images' programs.
// The package holds no .ts that Node would have to strip: it refuses to under node_modules.
import { spawnSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = join(root, 'dist')
rmSync(dist, { recursive: true, force: true })

const compiled = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'], {
  cwd: root,
  stdio: ['ignore', 2, 2],
})
if (compiled.status !== 0) process.exit(1)

// What the code reads beside itself: everything that is not a source, and the templates, which are sources for somebody else.
const isAsset = (file) => !/\.(ts|js|mjs)$/.test(file) || /\/templates?\//.test(file)
for (const file of globSync('{engine,agents,spec}/**/*.*', { cwd: root, exclude: (path) => path.includes('node_modules') }).filter(
  isAsset,
)) {
  mkdirSync(dirname(join(dist, file)), { recursive: true })
  cpSync(join(root, file), join(dist, file), { recursive: true })
}

const { buildBundles } = await import('../engine/images/bundle.ts')
await buildBundles(join(dist, 'image'), root)
