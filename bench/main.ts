/** `npm run bench [-- up|route|memory] [-- --rounds N]`: every figure is a ratio to a peer or a floor measured in the same run. */
import { benchMemory } from './memory.ts'
import { benchRoute } from './route.ts'
import { benchUp } from './up.ts'

const args = process.argv.slice(2)
const at = args.indexOf('--rounds')
const rounds = at === -1 ? null : Number(args.splice(at, 2)[1])
const wanted = args.length === 0 ? ['up', 'route', 'memory'] : args
for (const name of wanted) {
  if (name === 'up') await benchUp(rounds ?? 10)
  else if (name === 'route') await benchRoute(rounds ?? 6)
  else if (name === 'memory') await benchMemory()
  else {
    process.stderr.write(`unknown benchmark "${name}", expected up, route or memory\n`)
    process.exitCode = 2
  }
}
