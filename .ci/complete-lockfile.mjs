// Adds what npm leaves out of package-lock.json when the registry in use does not carry a platform's optional package:
// `npm ci` then refuses the whole file ("Missing: … from lock file"), everywhere. Run after a change of dependencies;
// `--check` only says what is missing. An entry made here has no integrity; npm fills it in where the package can be had.
import { readFileSync, writeFileSync } from 'node:fs'

const FILE = new URL('../package-lock.json', import.meta.url)
const OS = ['android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32', 'aix']
const CPU = ['arm64', 'arm', 'ia32', 'loong64', 'mips64el', 'ppc64', 'riscv64', 's390x', 'wasm32', 'x64']

const lock = JSON.parse(readFileSync(FILE, 'utf8'))

/** Where Node would look, from the package's own folder upwards. */
function isLocked(from, name) {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')))) {
    if (lock.packages[`${at === '' ? '' : `${at}/`}node_modules/${name}`] !== undefined) return true
    if (at === '' || !at.includes('/node_modules/')) return lock.packages[`node_modules/${name}`] !== undefined
  }
}

function platformOf(name) {
  const words = name.split(/[/-]/)
  const os = OS.filter((it) => words.includes(it))
  const cpu = CPU.filter((it) => words.includes(it))
  if (os.length !== 1 || cpu.length > 1) return undefined
  const libc = words.includes('musl') ? ['musl'] : words.includes('gnu') ? ['glibc'] : undefined
  return { ...(cpu.length === 1 && { cpu }), optional: true, os, ...(libc && { libc }) }
}

const missing = Object.entries(lock.packages).flatMap(([from, entry]) =>
  Object.entries(entry.optionalDependencies ?? {})
    .filter(([name]) => !isLocked(from, name))
    .map(([name, version]) => ({ name, version, isDev: entry.dev === true })),
)

if (missing.length > 0 && process.argv.includes('--check')) {
  process.stderr.write(`package-lock.json lacks ${missing.map((it) => it.name).join(', ')}: run .ci/node .ci/complete-lockfile.mjs\n`)
  process.exitCode = 1
} else if (missing.length > 0) {
  for (const { name, version, isDev } of missing) {
    const platform = platformOf(name)
    if (platform === undefined || !/^\d/.test(version))
      throw new Error(`cannot tell the platform or the version of ${name}@${version} from its name`)
    lock.packages[`node_modules/${name}`] = { version, ...(isDev && { dev: true }), ...platform }
  }
  const order = Object.keys(lock.packages).sort((a, b) => a.localeCompare(b, 'en'))
  lock.packages = Object.fromEntries(order.map((key) => [key, lock.packages[key]]))
  writeFileSync(FILE, `${JSON.stringify(lock, null, 2)}\n`)
  process.stdout.write(`${missing.length} entries added\n`)
}
