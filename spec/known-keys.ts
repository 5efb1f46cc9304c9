/** Texts that are somebody's key, by the marks that their makers gave them so that they can be found. */

const KNOWN: readonly (readonly [kind: string, pattern: RegExp])[] = [
  ['an Anthropic key', /\bsk-ant-[\w-]{20,}/],
  ['an OpenAI key', /\bsk-(?!ant-)[\w-]{20,}/],
  ['a Stripe key', /\b[rs]k_live_[A-Za-z0-9]{16,}/],
  ['a GitHub token', /\b(?:gh[opusr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,})/],
  ['a GitLab token', /\bglpat-[\w-]{20,}/],
  ['an AWS access key', /\b(?:AKIA|ASIA)[A-Z0-9]{16}\b/],
  ['a Google key', /\bAIza[\w-]{35}/],
  ['a Slack token', /\bxox[abeprs]-[\w-]{10,}/],
  ['an npm token', /\bnpm_[A-Za-z0-9]{36}/],
  ['a Hugging Face token', /\bhf_[A-Za-z0-9]{30,}/],
  ['a private key', /-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----/],
]

/** What the text has in it; null: nothing that is known. */
export const knownKey = (text: string): string | null => KNOWN.find(([, pattern]) => pattern.test(text))?.[0] ?? null

const EVERY = new RegExp(KNOWN.map(([, { source }]) => source).join('|'), 'g')
/** For excerpts of the file: as long as before, so that a caret below it stays right. */
export const maskKeys = (text: string): string => text.replaceAll(EVERY, (key) => key.slice(0, 4).padEnd(key.length, '*'))

const NAME = /(?:^|[_.-])(?:KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE)$|PASSWORD$/i
const PUBLIC = /PUBLIC_?KEY$/i
/** Fingerprints, by which images of languages check what they download. */
const FINGERPRINT = /^[0-9A-F]{8,64}(?:\s+[0-9A-F]{8,64})*$/i

/** A variable that by its name holds a key, and is not empty. */
export function looksSecret(name: string, value: string): boolean {
  if (value === '' || !NAME.test(name) || PUBLIC.test(name)) return false
  if (/(?:^|_)GPG_KEY$/i.test(name) && FINGERPRINT.test(value)) return false
  return !value.startsWith('/run/secrets/')
}
