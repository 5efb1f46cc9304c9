/** The two things that the proxy does outside of itself, as a port: tests give it names and targets of their own. */
import { lookup } from 'node:dns/promises'
import { connect, type Socket } from 'node:net'

export interface Net {
  /** Addresses of a name, as they come. [] or a rejection: there are none. */
  resolve(host: string): Promise<readonly string[]>
  /** A connection to that very address; rejects with the error's code. */
  connect(address: string, port: number): Promise<Socket>
}

export const CONNECT_MS = 10_000

/** Resolves as the container does (its hosts file, the engine's resolver), so that `host.docker.internal` is a name too. */
export const realNet: Net = {
  resolve: async (host) => (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address),
  connect: (address, port) =>
    new Promise((resolve, reject) => {
      const socket = connect({ host: address, port, noDelay: true, allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: 30_000 })
      const timer = setTimeout(() => socket.destroy(new Error('ETIMEDOUT')), CONNECT_MS)
      socket.once('error', reject)
      socket.once('close', () => clearTimeout(timer))
      socket.once('connect', () => {
        clearTimeout(timer)
        socket.off('error', reject)
        socket.on('error', () => {})
        // What was vetted is what is talked to.
        if (socket.remoteAddress === address) return resolve(socket)
        socket.destroy()
        reject(new Error('EADDRCHANGED'))
      })
    }),
}
