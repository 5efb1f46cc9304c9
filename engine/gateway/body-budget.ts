/** How much memory the bodies of open requests may take: 256 requests of 4 MiB of one replica would end the gateway. */
import { HttpError } from './http.ts'
import type { Replica } from './replicas.ts'

const MIB = 1_048_576
/** Our runtime sends at most 2 MiB at once on each of five connections. */
const REPLICA_BYTES = 16 * MIB
/** A quarter of the gateway's memory. */
const ALL_BYTES = 128 * MIB

export class BodyBudget {
  #bytes = 0

  reserve(replica: Replica, bytes: number): void {
    if (replica.bytes + bytes > REPLICA_BYTES) throw tooMany(`more than ${REPLICA_BYTES} bytes in open requests of one replica`)
    if (this.#bytes + bytes > ALL_BYTES) throw tooMany(`more than ${ALL_BYTES} bytes in open requests`)
    replica.bytes += bytes
    this.#bytes += bytes
  }

  release(replica: Replica, bytes: number): void {
    replica.bytes -= bytes
    this.#bytes -= bytes
  }
}

const tooMany = (message: string): HttpError => new HttpError(429, 'too_many_requests', message, 'Wait for answers before asking more.')
