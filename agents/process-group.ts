/** A command and all it started share the group that its leader's pid names. */
import { readdirSync, readFileSync } from 'node:fs'

/** Nobody left in the group: nothing to do. */
export function signalGroup(leader: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-leader, signal)
  } catch {
    // ESRCH.
  }
}

/** Asked of /proc and not by signal 0: that counts the dead too, and an init that does not reap leaves them for ever. */
export function groupAlive(leader: number): boolean {
  return readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1')
      // pid (name) state ppid pgrp …: the name may hold anything.
      const [state, , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return Number(group) === leader && state !== 'Z' && state !== 'X'
    } catch {
      return false
    }
  })
}
