/** A command and all it started share the group that its leader's pid names. */

/** False: nobody is left in the group. */
export function signalGroup(leader: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-leader, signal)
    return true
  } catch {
    return false
  }
}

export const groupAlive = (leader: number): boolean => signalGroup(leader, 0)
