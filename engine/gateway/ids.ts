/** Ids of what a task names by a key of its own: its children and its questions. */
import { createHash } from 'node:crypto'

/** The same key is the same id, whichever execution of the task uses it. */
export const idOf = (task: string, key: string): string => `${task}.${createHash('sha256').update(key).digest('hex').slice(0, 16)}`

/** The task that an id of idOf belongs to; '' for what is none. */
export const ownerOf = (id: string): string => id.slice(0, Math.max(0, id.lastIndexOf('.')))
