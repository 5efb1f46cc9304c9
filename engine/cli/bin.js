#!/usr/bin/env node
// The command. Plain JavaScript that any Node since 12.20 can parse: an old Node must get past this file
// to the Node 24 that came with the package (or to a message that says what to install).
import { spawn } from 'child_process'
import { existsSync, readFileSync } from 'fs'
import module from 'module'
import { homedir } from 'os'
import { join } from 'path'
import { fileURLToPath, pathToFileURL } from 'url'

const NEEDED = '22.18 or newer (24 recommended)'
const RESPAWNED = 'AGENTCTL_RESPAWNED'
const self = fileURLToPath(import.meta.url)

/** Node strips types without a flag since 22.18 and 23.6. */
function isRecent(version) {
  const parts = version.split('.').map(Number)
  return parts[0] > 23 || (parts[0] === 23 && parts[1] >= 6) || (parts[0] === 22 && parts[1] >= 18)
}

/** The platform package's binary, from where this file really lies: hoisted, nested, global or a checkout. */
function bundledNode() {
  try {
    return module.createRequire(import.meta.url).resolve('node-' + process.platform + '-' + process.arch + '/bin/node')
  } catch (_missing) {
    return undefined
  }
}

/** A terminal sends Ctrl-C to every process in its foreground group: the child has it already, and a second one would mean "now!". */
function terminalReachesChild() {
  try {
    const fields = readFileSync('/proc/self/stat', 'latin1')
      .replace(/^.*\) /, '')
      .split(' ')
    return Number(fields[4]) !== 0 && fields[2] === fields[5]
  } catch (_noProc) {
    return Boolean(process.stdin.isTTY)
  }
}

function respawn(binary) {
  const env = Object.assign({}, process.env)
  env[RESPAWNED] = String(process.pid)
  const child = spawn(binary, [self].concat(process.argv.slice(2)), { stdio: 'inherit', env: env })
  const forward = function (signal) {
    if (signal === 'SIGINT' && terminalReachesChild()) return
    child.kill(signal)
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGCONT']
  signals.forEach(function (signal) {
    process.on(signal, forward)
  })
  child.on('error', function (error) {
    fail('cannot start ' + binary + ': ' + error.message + '\n  Use Node ' + NEEDED + '.')
  })
  child.on('exit', function (code, signal) {
    if (!signal) return process.exit(code)
    signals.forEach(function (name) {
      process.removeListener(name, forward)
    })
    process.kill(process.pid, signal)
  })
}

/** kill -9 of the parent cannot be forwarded; without this its child would go on, unseen, with the project lock in its hand. */
function dieWithParent(parent) {
  setInterval(function () {
    if (process.ppid !== parent) process.kill(process.pid, 'SIGKILL')
  }, 500).unref()
}

/** In the user's own cache, not in the shared /tmp, where another user could have put code for us to run. */
function cacheCompiledCode() {
  if (!module.enableCompileCache) return
  const base = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  module.enableCompileCache(process.env.NODE_COMPILE_CACHE || join(base, 'agentctl', 'compile'))
}

/** A checkout runs its sources, so that a stale dist/ never bites; Node refuses .ts under node_modules, so an installed package runs dist/. */
function entry() {
  const source = fileURLToPath(new URL('./main.ts', import.meta.url))
  const isInstalled = /[\\/]node_modules[\\/]/.test(self)
  if (!isInstalled && existsSync(source)) return source
  const built = fileURLToPath(new URL('../../dist/engine/cli/main.js', import.meta.url))
  if (existsSync(built)) return built
  return fail('this installation is incomplete: ' + built + ' is missing. Install the package again.')
}

function fail(message) {
  process.stderr.write('agentctl: ' + message + '\n')
  process.exit(1)
}

function run() {
  const parent = Number(process.env[RESPAWNED])
  delete process.env[RESPAWNED]
  if (parent) dieWithParent(parent)
  cacheCompiledCode()
  import(pathToFileURL(entry()).href)
    .then(function (main) {
      return main.main(process.argv.slice(2))
    })
    .then(
      function (code) {
        process.exitCode = code
      },
      function (error) {
        fail('this is a bug in agentctl: ' + ((error && error.stack) || error))
      },
    )
}

if (isRecent(process.versions.node)) {
  run()
} else {
  const binary = bundledNode()
  if (binary && !process.env[RESPAWNED]) respawn(binary)
  else
    fail(
      'Node ' +
        process.versions.node +
        ' is too old: it needs Node ' +
        NEEDED +
        '. This platform (' +
        process.platform +
        '-' +
        process.arch +
        ') has no Node in the package; install one from your package manager or version manager.',
    )
}
