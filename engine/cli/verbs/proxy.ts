import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, open, readFile, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { resolve } from 'node:path'
import { controlAgent } from '../../control-agent.ts'
import { AgentctlError, EXIT } from '../../errors.ts'
import { usage } from '../failure.ts'
import { type ProxyPlace, startProxy } from '../proxy.ts'
import { type Call, type Run, value } from '../verb.ts'

/** Requests at once; each holds an exec stream and a socat in the gateway's container. */
const MAX_STREAMS = 64
/** Kept open between requests: making one takes some 50 ms. */
const MAX_FREE_STREAMS = 8

export const proxy: Run = async (session, call) => {
  const place = await placeOf(session.io.cwd, call.options)
  const project = await session.project()
  // That it is up, and that its gateway answers, is told before anything is opened.
  const { control } = await session.control(project)
  await control.health()
  const agent = controlAgent(await session.runtime(), project, session.signal, {
    maxSockets: MAX_STREAMS,
    maxFreeSockets: MAX_FREE_STREAMS,
  })
  const started = await startProxy({ place, agent, project }).catch((error: unknown) => Promise.reject(cannotListen(place, error)))
  try {
    const view =
      'socket' in place ? { project, socket: place.socket } : { project, url: urlOf(place.address, started.port), token: place.token }
    await session.out.line(view, (it) =>
      'socket' in it ? `${it.project}: listening on ${it.socket}\n` : `${it.project}: listening on ${it.url}\ntoken: ${it.token}\n`,
    )
    if (!session.signal.aborted) await new Promise<void>((done) => session.signal.addEventListener('abort', () => done(), { once: true }))
  } finally {
    await started.close()
  }
  return EXIT.done
}

const urlOf = (address: string, port: number | null): string => `http://${address.includes(':') ? `[${address}]` : address}:${port ?? 0}`

export async function placeOf(cwd: string, options: Call['options']): Promise<ProxyPlace> {
  const call = { args: [], options }
  const [socket, file] = [value(call, 'socket'), value(call, 'tokenFile')]
  const given = options['port']
  if ((socket === null) === (given === undefined)) throw usage('proxy expects either --socket PATH or --port [ADDRESS:]PORT')
  if (socket !== null) {
    if (file !== null) throw usage('--token-file goes with --port: a socket is guarded by its permissions')
    const path = resolve(cwd, socket)
    await clearSocket(path)
    return { socket: path }
  }
  const { address, port } = parsePlace(typeof given === 'string' ? given : '0')
  return { address, port, token: file === null ? randomBytes(32).toString('hex') : await tokenOf(resolve(cwd, file)) }
}

/** `7071`, `127.0.0.2:7071`, `[::1]:7071`. Only this machine: what goes out of it needs TLS and more than one token. */
export function parsePlace(text: string): { readonly address: string; readonly port: number } {
  const match = /^(?:(\[[\da-f:]+\]|[^:]+):)?(\d{1,5})$/i.exec(text)
  const port = Number(match?.[2] ?? Number.NaN)
  if (match === null || !(port <= 65_535)) throw usage(`--port expects PORT or ADDRESS:PORT, got "${text}"`)
  const name = (match[1] ?? '127.0.0.1').replace(/^\[(.*)\]$/, '$1').toLowerCase()
  const address = name === 'localhost' ? '127.0.0.1' : name
  if (address !== '::1' && !/^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(address))
    throw usage(
      `--port takes loopback addresses alone, got "${name}"`,
      'Use 127.0.0.1, or a tunnel such as `ssh -L` to reach it from elsewhere.',
    )
  return { address, port }
}

/** A socket that a proxy left behind when it was killed is removed; one that somebody answers on, and any other file, is not. */
async function clearSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => null)
  if (found === null) return
  if (!found.isSocket()) throw usage(`${path} exists and is not a socket`, 'Choose another path, or remove it.')
  const answers = await new Promise<boolean>((done) => {
    const probe = connect(path)
    probe.once('connect', () => {
      probe.destroy()
      done(true)
    })
    probe.once('error', () => done(false))
  })
  if (answers) throw usage(`something answers on ${path} already`, 'Choose another path, or end it.')
  await rm(path, { force: true })
}

/** Made where there is none, for the user alone. */
async function tokenOf(path: string): Promise<string> {
  const token = randomBytes(32).toString('hex')
  try {
    const file = await open(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600)
    await file.writeFile(`${token}\n`)
    await file.close()
    return token
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST')
      throw usage(`--token-file ${path} cannot be written: ${String((error as Error).message)}`)
  }
  const text = (
    await readFile(path, 'utf8').catch((error: Error) => Promise.reject(usage(`--token-file ${path} cannot be read: ${error.message}`)))
  ).trim()
  if (!/^[\x21-\x7e]{16,512}$/.test(text))
    throw usage(
      `--token-file ${path} holds no token`,
      'Expected one line of 16 to 512 visible ASCII characters; remove the file to have one made.',
    )
  return text
}

function cannotListen(place: ProxyPlace, error: unknown): AgentctlError {
  const where = 'socket' in place ? place.socket : urlOf(place.address, place.port)
  const { code, message } = error as NodeJS.ErrnoException
  const hint = code === 'EADDRINUSE' ? 'Choose another port, or none for a free one.' : 'Choose another place.'
  return new AgentctlError(code === 'EADDRINUSE' ? 'AG4004' : 'AG7001', `the proxy cannot listen on ${where}: ${message}`, {
    hint,
    exit: EXIT.failed,
    cause: error,
  })
}
