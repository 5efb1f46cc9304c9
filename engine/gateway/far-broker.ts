/** How the gateway reaches a broker of the user's own: through the relay of the egress container, with TLS, if any, up to the broker itself. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { brokerAddress } from '../../spec/broker.ts'
import type { BrokerSettings } from '../../spec/model.ts'
import { TRUSTED_SECRETS } from '../names.ts'
import { RELAY_PORT } from '../relay.ts'
import { WITNESS_FILE } from './witness.ts'

export interface FarBroker {
  readonly host: string
  readonly port: number
  readonly db: number
  readonly username?: string
  readonly password?: string
  readonly tls?: { readonly servername: string; readonly ca?: string }
  readonly demands: BrokerSettings['durability']
  readonly refresh: () => { readonly password?: string; readonly ca?: string }
}

/** null: the broker is the one that we run. `relay`: where the relay is; `secrets`: the folder with the password and the CA. */
export function farBroker(
  settings: BrokerSettings,
  secrets: string,
  relay: { readonly host: string; readonly port: number } = { host: 'egress', port: RELAY_PORT },
): FarBroker | null {
  const address = settings.url === null ? null : brokerAddress(settings.url)
  if (address === null) return null
  const file = (wanted: boolean, name: string): string | undefined => {
    try {
      return wanted ? readFileSync(join(secrets, name), 'utf8') : undefined
    } catch {
      // The folder is being filled again: what was read before still holds.
      return undefined
    }
  }
  const refresh: FarBroker['refresh'] = () => {
    const password = file(settings.password !== null, TRUSTED_SECRETS.brokerPassword)?.trim()
    const ca = file(settings.ca !== null, TRUSTED_SECRETS.brokerCa)
    return { ...(password === undefined ? {} : { password }), ...(ca === undefined ? {} : { ca }) }
  }
  const { password, ca } = refresh()
  // A user without a password is one with `nopass`, which takes any.
  const secret = password ?? (address.username === null ? undefined : 'none')
  return {
    ...relay,
    db: address.db,
    ...(address.username === null ? {} : { username: address.username }),
    ...(secret === undefined ? {} : { password: secret }),
    ...(address.tls ? { tls: { servername: address.host, ...(ca === undefined ? {} : { ca }) } } : {}),
    demands: settings.durability,
    refresh,
  }
}

/** The witness of this broker: who goes to another and comes back has lost nothing. */
export function witnessFile({ url }: BrokerSettings): string {
  const address = url === null ? null : brokerAddress(url)
  if (address === null) return WITNESS_FILE
  const where = createHash('sha256').update(`${address.host}:${address.port}/${address.db}`).digest('hex').slice(0, 12)
  return `witness-${where}.jsonl`
}
