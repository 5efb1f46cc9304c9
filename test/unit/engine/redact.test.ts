import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formsOf, isWord, Redactor } from '../../../engine/redact.ts'

const redactor = (values: { readonly [name: string]: string | Buffer }): Redactor => {
  const made = new Redactor()
  made.learn(values)
  return made
}

test('a value is taken out in each of its forms, and its name says which it was', () => {
  const { redact } = redactor({ key: 'pa ss/w"ör+d' })
  const bytes = Buffer.from('pa ss/w"ör+d')
  for (const form of [
    'pa ss/w"ör+d',
    JSON.stringify('pa ss/w"ör+d').slice(1, -1),
    bytes.toString('base64'),
    bytes.toString('base64url'),
    bytes.toString('hex'),
    bytes.toString('hex').toUpperCase(),
    encodeURIComponent('pa ss/w"ör+d'),
    encodeURIComponent('pa ss/w"ör+d').replaceAll('%20', '+'),
    encodeURIComponent('pa ss/w"ör+d').toLowerCase(),
  ])
    expect(redact(`before ${form} after`), form).toBe('before [secret key] after')
})

test('inside base64 of more than the value: a header of basic authorization shows nothing of it', () => {
  const { redact } = redactor({ key: 'correct-horse-battery' })
  for (const user of ['a', 'ab', 'abc', 'abcd']) {
    for (const alphabet of ['base64', 'base64url'] as const) {
      const header = Buffer.from(`${user}:correct-horse-battery\n`).toString(alphabet)
      const shown = redact(header)
      expect(shown).toContain('[secret key]')
      expect(shown.replace('[secret key]', '').length).toBeLessThanOrEqual(12)
    }
  }
})

test('a value of several lines: each line by itself, as logs have them; the line break at the end is no part of it', () => {
  const { redact } = redactor({ pem: 'first-line\nsecond-line\n' })
  expect(redact('x first-line\ny second-line')).toBe('x [secret pem]\ny [secret pem]')
  expect(redactor({ file: 'sesame-open\n' }).redact('is sesame-open.')).toBe('is [secret file].')
})

test('short values and plain words are left alone, and so is what is near one; a value that another one contains does not cut that one', () => {
  expect(redactor({ password: 'postgres' }).redact('container p-postgres-1')).toBe('container p-postgres-1')
  expect(redactor({ pin: '1234' }).redact('1234 and 31323334')).toBe('1234 and 31323334')
  expect(redactor({ a: 'abcdef', b: 'abcdef-and-more' }).redact('abcdef-and-more')).toBe('[secret b]')
  expect(new Redactor().redact('nothing is known')).toBe('nothing is known')
})

test('bytes that are no text are known by their encodings', () => {
  const bytes = Buffer.from([0xff, 0xfe, 0x80, 0, 1, 2, 3, 4])
  const { redact } = redactor({ bin: bytes })
  expect(redact(bytes.toString('base64'))).toBe('[secret bin]')
  expect(redact(bytes.toString('hex'))).toBe('[secret bin]')
})

test('a value that was exchanged is still known', () => {
  const made = redactor({ key: 'value-before' })
  made.learn({ key: 'value-after' })
  expect(made.redact('value-before value-after')).toBe('[secret key] [secret key]')
})

test('whatever the value, no form of it is left', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 6, maxLength: 60 }), fc.string({ maxLength: 9 }), (value, around) => {
      fc.pre(Buffer.byteLength(value.trim()) >= 6 && !isWord(value) && !'[secret v]'.includes(value.trim()))
      const { redact } = redactor({ v: value })
      const shown = redact([...formsOf(value).map((form) => `${around}${form}`)].join(' | '))
      for (const form of [value, Buffer.from(value).toString('base64'), Buffer.from(value).toString('hex')])
        expect(shown).not.toContain(form)
    }),
    { numRuns: 40 },
  )
})
