/**
 * `npm run bench [-- up|route|memory|recovery|idle|durability|gateways|egress …] [--rounds N]`: every figure is a ratio to a peer, or a count, taken in the same run.
 * A missed target is printed; only a benchmark that could not run makes the command fail.
 */
import { benchDurability } from './durability.ts'
import { benchEgress } from './egress.ts'
import { benchGateways } from './gateways.ts'
import { benchIdle } from './idle.ts'
import { benchMemory } from './memory.ts'
import { benchRecovery } from './recovery.ts'
import { benchRoute } from './route.ts'
import { closing, disposeAll } from './support.ts'
import { benchUp } from './up.ts'

const BENCHES: { readonly [name: string]: (rounds: number | null) => Promise<void> } = {
  up: (rounds) => benchUp(rounds ?? 10),
  route: (rounds) => benchRoute(rounds ?? 6),
  memory: () => benchMemory(),
  recovery: (rounds) => benchRecovery(rounds),
  idle: () => benchIdle(),
  durability: (rounds) => benchDurability(rounds ?? 3),
  gateways: (rounds) => benchGateways(rounds ?? 6),
  egress: (rounds) => benchEgress(rounds ?? 7),
}

function usage(message: string): never {
  process.stderr.write(`${message}\nusage: npm run bench [-- up|route|memory|recovery|idle|durability|gateways|egress …] [--rounds N]\n`)
  process.exit(2)
}

const args = process.argv.slice(2)
const at = args.indexOf('--rounds')
const rounds = at === -1 ? null : Number(args.splice(at, 2)[1])
if (rounds !== null && !(Number.isInteger(rounds) && rounds > 0)) usage('--rounds wants a whole number above 0')
const wanted = args.length === 0 ? Object.keys(BENCHES) : args
for (const name of wanted)
  if (BENCHES[name] === undefined) usage(`unknown benchmark "${name}", expected ${Object.keys(BENCHES).join(', ')}`)

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => {
    process.stderr.write('\ninterrupted: taking the projects of the benchmark down\n')
    disposeAll()
    process.exit(code)
  })
}

for (const name of wanted) {
  try {
    await BENCHES[name]?.(rounds)
  } catch (error) {
    process.exitCode = 1
    process.stderr.write(`✘ ${name} could not be measured: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  }
}
closing()
