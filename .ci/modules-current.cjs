// Exit code 0 when node_modules holds what package-lock.json says: npm's own record of an install is compared, not times.
'use strict'
const fs = require('fs')
const path = require('path')

function packages(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')).packages
  } catch (_missing) {
    return undefined
  }
}

const fits = (list, value) => !list || list.includes(value)

function isCurrent(root) {
  const wanted = packages(path.join(root, 'package-lock.json'))
  const installed = packages(path.join(root, 'node_modules', '.package-lock.json'))
  if (!wanted || !installed) return false
  const isThere = (name, entry) => {
    const found = installed[name]
    if (found) return found.version === entry.version && found.integrity === entry.integrity && fs.existsSync(path.join(root, name))
    return Boolean(entry.optional || entry.peer) && !(isPlatform(name) && fits(entry.os, process.platform) && fits(entry.cpu, process.arch))
  }
  const isKnown = (name) => Boolean(wanted[name])
  return Object.entries(wanted).every(([name, entry]) => name === '' || isThere(name, entry)) && Object.keys(installed).every(isKnown)
}

/** Our own Node: optional to npm, because only one of the two fits; not optional to us. */
function isPlatform(name) {
  return name.startsWith('node_modules/node-linux-')
}

process.exitCode = isCurrent(process.argv[2]) ? 0 : 1
