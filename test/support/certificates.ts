/** A certificate authority and a server certificate of a test's own, by openssl. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Certificates {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** `names`: as subjectAltName has them, "DNS:redis.test". */
export function makeCertificates(names: readonly string[]): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 't-certificates-'))
  const path = (name: string): string => join(folder, name)
  const openssl = (...args: readonly string[]): void => void execFileSync('openssl', args, { stdio: 'pipe' })
  try {
    const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
    const authority = ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign']
    openssl('req', '-x509', ...fresh, ...authority, '-subj', '/CN=test authority', '-keyout', path('ca.key'), '-out', path('ca.pem'))
    openssl('req', ...fresh.slice(0, -2), '-subj', '/CN=test', '-keyout', path('key.pem'), '-out', path('csr.pem'))
    writeFileSync(path('ext'), `subjectAltName=${names.join(',')}\n`)
    const signed = ['-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-CAcreateserial', '-days', '2', '-extfile', path('ext')]
    openssl('x509', '-req', '-in', path('csr.pem'), ...signed, '-out', path('cert.pem'))
    const read = (name: string): string => readFileSync(path(name), 'utf8')
    return { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
