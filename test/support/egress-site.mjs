// Runs in a container that plays the outside: a website on 80 and 443 that says what it has seen, a git repository and two package registries.
import { createReadStream, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createSecure } from 'node:https'

const package_ = { name: 'left', version: '1.2.3', dist: { tarball: 'https://allowed.test/left.tgz' } }
const FIXED = {
  '/left': JSON.stringify({ name: 'left', 'dist-tags': { latest: '1.2.3' }, versions: { '1.2.3': package_ } }),
  '/simple/left/': '<a href="https://allowed.test/left-1.2.3-py3-none-any.whl">left-1.2.3-py3-none-any.whl</a>',
}

function answer(request, response) {
  console.log(`SEEN ${request.method} ${request.headers.host}${request.url}`)
  const path = request.url.split('?')[0]
  if (FIXED[path] !== undefined) {
    response.writeHead(200, { 'content-type': path.endsWith('/') ? 'text/html' : 'application/json' })
    return response.end(FIXED[path])
  }
  if (path.startsWith('/repo.git/')) {
    const file = `/site${path}`
    const found = statSync(file, { throwIfNoEntry: false })
    if (!found?.isFile()) return response.writeHead(404).end()
    return createReadStream(file).pipe(response)
  }
  response.end(`site ${path}\n`)
}

function upgrade(_request, socket) {
  socket.on('error', () => {})
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n')
  socket.pipe(socket)
}

const secure = createSecure({ key: readFileSync('/site/key.pem'), cert: readFileSync('/site/cert.pem') }, answer)
for (const [server, port] of [
  [createServer(answer), 80],
  [secure, 443],
  [createServer(answer), 8080],
])
  server.on('upgrade', upgrade).listen(port, '0.0.0.0')
console.log('READY')
