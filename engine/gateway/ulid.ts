export { newRunId, RUN_ID, ulid } from '../ulid.ts'
