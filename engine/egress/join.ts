/** Two sockets become one: bytes, back-pressure and ends pass both ways. */
import type { Duplex } from 'node:stream'
import type { Socket } from 'node:net'

/** A model may think for minutes before it answers. */
export const IDLE_MS = 900_000

/** `closed` is called once, when both are gone. */
export function join(near: Duplex, far: Socket, closed: () => void): void {
  const sockets = [near as Socket, far]
  let open = sockets.length
  for (const socket of sockets) {
    socket.on('error', () => {})
    socket.setTimeout(IDLE_MS, () => socket.destroy())
    socket.once('close', () => {
      for (const each of sockets) each.destroy()
      open -= 1
      if (open === 0) closed()
    })
  }
  // One of them may have gone while the other was dialled.
  if (sockets.some((socket) => socket.destroyed)) for (const socket of sockets) socket.destroy()
  near.pipe(far)
  far.pipe(near)
}
