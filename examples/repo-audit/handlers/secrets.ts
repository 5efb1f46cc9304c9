/**
 * Values that look like committed secrets: well-known key formats, and assignments of random-looking values to names that promise a secret.
 * What is documented, a placeholder or a hash is not reported; a value itself never leaves this file.
 */
import { createHash } from 'node:crypto'

export interface Found {
  /** Offset of the value in the text. */
  readonly at: number
  readonly kind: string
  readonly redacted: string
}

interface Rule {
  readonly kind: string
  /** Sticky; group 1, where there is one, is the secret. */
  readonly pattern: RegExp
  /** How much of the value is the public mark of its kind and may be shown. */
  readonly mark: number
  readonly accepts?: (value: string) => boolean
}

/** Bits per character. */
export function entropy(value: string): number {
  const counts = new Map<string, number>()
  for (const character of value) counts.set(character, (counts.get(character) ?? 0) + 1)
  let bits = 0
  for (const count of counts.values()) bits -= (count / value.length) * Math.log2(count / value.length)
  return bits
}

const PLACEHOLDER =
  /example|placeholder|change.?me|your|dummy|sample|fake|redacted|insert|replace|secret.?here|not.?a.?real|xxx|\.\.\.|[<>{}$*%]|(.)\1{4}/i
/** Eight neighbours in a row of "abc…" or "012…", upwards or downwards, as people type who make one up. */
function isTyped(value: string): boolean {
  let up = 1
  let down = 1
  for (let at = 1; at < value.length; at++) {
    const step = value.toLowerCase().charCodeAt(at) - value.toLowerCase().charCodeAt(at - 1)
    up = step === 1 ? up + 1 : 1
    down = step === -1 ? down + 1 : 1
    if (up >= 8 || down >= 8) return true
  }
  return false
}
/** SHA-256 (first half) of keys that vendors print in their documentation and that carry no mark of it: GitHub's tokens, Google's Maps. */
const DOCUMENTED: ReadonlySet<string> = new Set(['3543c50b0cb9cea8', 'ac9265e56c79b234'])
const isDocumented = (value: string): boolean => DOCUMENTED.has(createHash('sha256').update(value).digest('hex').slice(0, 16))
export const isPlaceholder = (value: string): boolean => PLACEHOLDER.test(value) || isTyped(value) || isDocumented(value)

const isRandom =
  (bits: number) =>
  (value: string): boolean =>
    entropy(value) >= bits

/** A line of base64 follows; `-----BEGIN …-----` alone stands in much code and documentation. */
const isKeyBody = (body: string): boolean => isRandom(3.8)(/[A-Za-z0-9+/]{40}/.exec(body)?.[0] ?? '')

const decoded = (part: string): Readonly<Record<string, unknown>> | null => {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'))
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}
const isLiveJwt = (value: string): boolean => {
  const [head = '', body = '', signature = ''] = value.split('.')
  const claims = decoded(body)
  // jwt.io's own examples are about John Doe (and admin: true); they stand in every tutorial.
  return (
    decoded(head)?.['alg'] !== undefined &&
    claims !== null &&
    !/john doe/i.test(JSON.stringify(claims)) &&
    claims['sub'] !== '1234567890' &&
    entropy(signature) >= 4
  )
}

const RULES: readonly Rule[] = [
  { kind: 'aws-access-key-id', pattern: /(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])/y, mark: 4, accepts: isRandom(3) },
  { kind: 'github-token', pattern: /gh[pousr]_[A-Za-z0-9]{36,251}(?![A-Za-z0-9])/y, mark: 4, accepts: isRandom(3.5) },
  { kind: 'github-token', pattern: /github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?![A-Za-z0-9])/y, mark: 11, accepts: isRandom(3.5) },
  { kind: 'gitlab-token', pattern: /glpat-[A-Za-z0-9_-]{20,64}(?![A-Za-z0-9_-])/y, mark: 6, accepts: isRandom(3.5) },
  {
    kind: 'slack-token',
    pattern: /xox[abeoprs]-(?:\d{1,2}-)?\d{9,14}-[A-Za-z0-9-]{10,200}(?![A-Za-z0-9-])/y,
    mark: 5,
    accepts: isRandom(3.2),
  },
  {
    kind: 'slack-webhook',
    pattern: /hooks\.slack\.com\/services\/(T[A-Z0-9]{7,12}\/B[A-Z0-9]{7,12}\/[A-Za-z0-9]{20,32})(?![A-Za-z0-9])/y,
    mark: 0,
    accepts: isRandom(3.5),
  },
  { kind: 'stripe-key', pattern: /[rs]k_(?:live|prod)_[A-Za-z0-9]{16,248}(?![A-Za-z0-9])/y, mark: 8, accepts: isRandom(3.5) },
  { kind: 'google-api-key', pattern: /AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])/y, mark: 4, accepts: isRandom(3.5) },
  { kind: 'npm-token', pattern: /npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])/y, mark: 4, accepts: isRandom(3.5) },
  { kind: 'anthropic-key', pattern: /sk-ant-[a-z0-9]{2,12}-[A-Za-z0-9_-]{32,200}(?![A-Za-z0-9_-])/y, mark: 7, accepts: isRandom(3.8) },
  {
    kind: 'openai-key',
    pattern: /sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{16,120}T3BlbkFJ[A-Za-z0-9_-]{16,120}(?![A-Za-z0-9_-])/y,
    mark: 3,
    accepts: isRandom(3.8),
  },
  { kind: 'openai-key', pattern: /sk-(?:proj-|svcacct-|admin-)[A-Za-z0-9_-]{40,200}(?![A-Za-z0-9_-])/y, mark: 3, accepts: isRandom(4.2) },
  { kind: 'sendgrid-key', pattern: /SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}(?![A-Za-z0-9_-])/y, mark: 3, accepts: isRandom(4) },
  { kind: 'azure-storage-key', pattern: /AccountKey=([A-Za-z0-9+/]{86}==)/y, mark: 0, accepts: isRandom(4.5) },
  { kind: 'private-key', pattern: /-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----([\s\S]{40,400})/y, mark: 0, accepts: isKeyBody },
  { kind: 'jwt', pattern: /eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{20,600}/y, mark: 3, accepts: isLiveJwt },
  {
    kind: 'password-in-url',
    pattern:
      /:\/\/[^\s:@/?#"'`<>(){}$]{1,64}:([^\s:@/"'`<>(){}$\\]{8,128})@(?!(?:[\w-]+\.)*(?:example(?:\.\w+)?|test|invalid|localhost)\b)[A-Za-z0-9[]/y,
    mark: 0,
    accepts: (value) => /\d/.test(value) && /[a-z]/i.test(value) && !/pass|secret|token|user/i.test(value) && entropy(value) >= 3,
  },
]
/** One pass over the text finds where any rule may begin. */
const BEGINS =
  /A(?:KIA|SIA|BIA|CCA)[A-Z0-9]|AIza|AccountKey=|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|hooks\.slack|[rs]k_(?:live|prod)_|npm_|sk-[a-zA-Z0-9]|SG\.[\w-]|-----BEGIN [A-Z]|eyJ[A-Za-z0-9]|:\/\/[^\s:@/]{1,64}:/g
const WORD = /[A-Za-z0-9_]/

const ASSIGNMENT =
  /(?:secret|passw(?:or)?d|passphrase|token|api[-_]?key|access[-_]?key|auth[-_]?key|encryption[-_]?key|signing[-_]?key|private[-_]?key|credential)([\w.-]{0,32})["']?\]?[ \t]{0,8}(?::[ \t]?(?:string|str|String|&str)[ \t]?=|:=|=>|[:=])[ \t]{0,8}(?:(["'`])([^"'`\r\n\\]{16,256})\2|([A-Za-z0-9+/_.~=-]{16,256})(?=[ \t\r\n]|$))/gi
/** A name that says hash, public, id … promises no secret, whatever else is in it. */
const HARMLESS_NAME =
  /hash|sha\d|md5|digest|checksum|integrity|fingerprint|public|revision|version|[-_.]id$|Id$|type|name|path|file|url|uri|regex|pattern|header|length|\.(?:[cm]?[jt]sx?|json|md|py|rb|go|rs|c|h|java|css|html?|ya?ml|toml|txt|map|lock|sh)$/i
const HARMLESS_VALUE = /^(?:[0-9a-f]{8}-[0-9a-f]{4}-|sha\d{3}-|https?:|\/|\.)/i

/** Changes between lower case, upper case and digits: random text changes at more than half of its characters, camelCase at fewer. */
function changes(value: string): number {
  const kind = (character: string): number => (/[a-z]/.test(character) ? 1 : /[A-Z]/.test(character) ? 2 : /\d/.test(character) ? 3 : 4)
  let count = 0
  for (let at = 1; at < value.length; at++) if (kind(value[at] ?? '') !== kind(value[at - 1] ?? '')) count += 1
  return count
}
function looksRandom(value: string): boolean {
  if (!/^[A-Za-z0-9+/_.~=!@#^&-]+$/.test(value) || !/\d.*\d/.test(value)) return false
  if (/^[0-9a-f]+$/i.test(value)) return value.length >= 32 && /[a-f]/i.test(value) && entropy(value) >= 3
  return value.length >= 20 && /[A-Z]/i.test(value) && entropy(value) >= 3.7 && changes(value) >= value.length * 0.4
}

const redact = (value: string, mark: number): string => `${value.slice(0, mark)}${'*'.repeat(6)} (${value.length} characters)`

function byFormat(text: string, from: number, until: number): Found[] {
  const found: Found[] = []
  BEGINS.lastIndex = from
  for (let hit = BEGINS.exec(text); hit !== null && hit.index < until; hit = BEGINS.exec(text)) {
    BEGINS.lastIndex = hit.index + 1
    // In the middle of a longer word (base64, an identifier) it is no key; "://" always follows one, and a literal's \n may come before a key file.
    if (hit[0].startsWith('://') || hit[0].startsWith('-') || hit.index === 0 || !WORD.test(text[hit.index - 1] ?? '')) {
      for (const rule of RULES) {
        rule.pattern.lastIndex = hit.index
        const match = rule.pattern.exec(text)
        if (match === null) continue
        const value = match[1] ?? match[0]
        const at = rule.kind === 'private-key' ? hit.index : hit.index + match[0].indexOf(value)
        if ((rule.kind !== 'private-key' && rule.kind !== 'jwt' && isPlaceholder(value)) || rule.accepts?.(value) === false) continue
        found.push({
          at,
          kind: rule.kind,
          redacted: rule.kind === 'private-key' ? '-----BEGIN ****** PRIVATE KEY-----' : redact(value, rule.mark),
        })
        BEGINS.lastIndex = hit.index + match[0].length
        break
      }
    }
  }
  return found
}

function byName(text: string, from: number, until: number): Found[] {
  const found: Found[] = []
  ASSIGNMENT.lastIndex = from
  for (let hit = ASSIGNMENT.exec(text); hit !== null && hit.index < until; hit = ASSIGNMENT.exec(text)) {
    const value = hit[3] ?? hit[4] ?? ''
    const name = /[\w./-]*$/.exec(text.slice(Math.max(0, hit.index - 32), hit.index))?.[0] ?? ''
    const harmless = name.includes('/') || HARMLESS_NAME.test(name) || HARMLESS_NAME.test(hit[1] ?? '') || HARMLESS_VALUE.test(value)
    if (harmless || isPlaceholder(value) || !looksRandom(value)) continue
    const kind = /aws.{0,4}$/i.test(name) && value.length === 40 ? 'aws-secret-access-key' : 'random-value'
    found.push({ at: hit.index + hit[0].lastIndexOf(value), kind, redacted: redact(value, 0) })
  }
  return found
}

/** Secrets that begin in text[from, until); text around it is context. In order of place, one per place. */
export function secretsIn(text: string, from: number = 0, until: number = text.length): readonly Found[] {
  const formats = byFormat(text, from, until)
  const known = new Set(formats.map((found) => found.at))
  return [...formats, ...byName(text, from, until).filter((found) => !known.has(found.at))].sort((a, b) => a.at - b.at)
}
