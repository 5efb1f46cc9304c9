// Finds the container engine as the docker CLI finds it and asks it a question, with nothing but Node (12 or newer):
// set-up runs before anything is installed, and a docker client need not be there.
'use strict'
const crypto = require('crypto')
const fs = require('fs')
const http = require('http')
const https = require('https')
const os = require('os')
const path = require('path')

const TIMEOUT_MS = 15000 // a busy engine takes seconds to list

function dockerConfigDir(env) {
  return env.DOCKER_CONFIG || path.join(env.HOME || os.homedir(), '.docker')
}

function contextHost(env) {
  let name = env.DOCKER_CONTEXT
  if (!name) {
    try {
      name = JSON.parse(fs.readFileSync(path.join(dockerConfigDir(env), 'config.json'), 'utf8')).currentContext
    } catch (_noConfig) {
      return undefined
    }
  }
  if (!name || name === 'default') return undefined
  const id = crypto.createHash('sha256').update(name).digest('hex')
  try {
    const meta = JSON.parse(fs.readFileSync(path.join(dockerConfigDir(env), 'contexts', 'meta', id, 'meta.json'), 'utf8'))
    return meta.Endpoints.docker.Host
  } catch (_noMeta) {
    return `context ${name}`
  }
}

/** Every place where an engine may listen; one that the user chose is the only one. */
function candidates(env) {
  const chosen = env.DOCKER_HOST || contextHost(env)
  if (chosen) return [chosen]
  const home = env.HOME || os.homedir()
  const found = [`${env.AGENTCTL_SETUP_ROOT || ''}/var/run/docker.sock`]
  if (env.XDG_RUNTIME_DIR) found.push(path.join(env.XDG_RUNTIME_DIR, 'docker.sock'))
  found.push(path.join(home, '.docker', 'run', 'docker.sock'))
  return found.map((socket) => `unix://${socket}`)
}

function requestOptions(host, env) {
  if (host.startsWith('unix://')) return { client: http, options: { socketPath: host.slice('unix://'.length) } }
  if (!/^(tcp|https?):\/\//.test(host)) return undefined
  const url = new URL(host.replace(/^tcp:/, 'http:'))
  const isTls = host.startsWith('https:') || Boolean(env.DOCKER_TLS_VERIFY)
  const options = { host: url.hostname, port: url.port || (isTls ? 2376 : 2375) }
  if (!isTls) return { client: http, options }
  const certs = env.DOCKER_CERT_PATH || dockerConfigDir(env)
  const read = (name) => (fs.existsSync(path.join(certs, name)) ? fs.readFileSync(path.join(certs, name)) : undefined)
  return { client: https, options: Object.assign(options, { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') }) }
}

/** Resolves to {status, body}; rejects with the reason. */
function request(host, target, env, method) {
  return new Promise((resolve, reject) => {
    const how = requestOptions(host, env || process.env)
    if (!how) return reject(new Error(`cannot speak to ${host} from here`))
    const call = how.client.request(
      Object.assign({ path: target, method: method || 'GET', timeout: TIMEOUT_MS }, how.options),
      (response) => {
        let body = ''
        response.setEncoding('utf8')
        response.on('data', (chunk) => (body += chunk))
        response.on('end', () => resolve({ status: response.statusCode, body }))
        response.on('error', reject)
      },
    )
    call.on('timeout', () => call.destroy(new Error(`no answer from ${host} in ${TIMEOUT_MS / 1000} s`)))
    call.on('error', reject)
    call.end()
  })
}

/** Resolves to {host} of the first engine that answers, or {errors}: why each did not. */
async function findEngine(env) {
  const errors = []
  for (const host of candidates(env || process.env)) {
    try {
      const { status } = await request(host, '/_ping', env)
      if (status === 200) return { host, errors }
      errors.push(`${host}: ${status}`)
    } catch (error) {
      errors.push(`${host}: ${error.code || error.message}`)
    }
  }
  return { host: undefined, errors }
}

/** True when the engine has an image from which, or instead of which, our images are made. */
async function hasBaseImage(host, env) {
  const { status, body } = await request(host, '/images/json', env)
  if (status !== 200) return false
  const tags = JSON.parse(body).flatMap((image) => image.RepoTags || [])
  return tags.some((tag) => /^(docker\.io\/library\/|docker\.io\/)?(debian|agentctl\/(agent|engine|base)):/.test(tag))
}

module.exports = { candidates, findEngine, hasBaseImage, request }

// `engine.cjs ping`: 0 answers, 1 silent, 2 permission denied, 3 only the docker client can tell (ssh). `engine.cjs base`: 0 has a base image.
async function main(verb) {
  const { host, errors } = await findEngine(process.env)
  if (verb === 'base') return host && (await hasBaseImage(host, process.env)) ? 0 : 1
  if (host) {
    process.stdout.write(`${host}\n`)
    return 0
  }
  process.stdout.write(`${errors.join('; ')}\n`)
  if (errors.some((line) => line.startsWith('ssh:'))) return 3
  return errors.some((line) => line.endsWith('EACCES')) ? 2 : 1
}

if (require.main === module) {
  main(process.argv[2]).then(
    (code) => (process.exitCode = code),
    () => (process.exitCode = 1),
  )
}
