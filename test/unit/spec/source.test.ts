import { expect, test } from 'vitest'
import { firstLine, lineText, makeSource, placeOf, position } from '../../../spec/source.ts'

test('lines and columns are 1-based and columns count characters', () => {
  const source = makeSource('/f', 'a: 1\r\n🎉é: "日本"\nlast')
  expect(position(source, 0)).toEqual({ line: 1, column: 1 })
  expect(position(source, source.text.indexOf('日'))).toEqual({ line: 2, column: 6 })
  expect(position(source, source.text.length)).toEqual({ line: 3, column: 5 })
  expect(position(source, 10_000)).toEqual({ line: 3, column: 5 })
  expect([1, 2, 3, 4].map((line) => lineText(source, line))).toEqual(['a: 1', '🎉é: "日本"', 'last', ''])
})

test('an empty file has a first line', () => {
  expect(placeOf({ source: makeSource('/f', ''), start: 0, end: 0 })).toEqual({
    file: '/f',
    line: 1,
    column: 1,
    end_line: 1,
    end_column: 1,
  })
})

test('a block is pointed at by its first line', () => {
  const source = makeSource('/f', 'a:  \n  b: 1\n')
  expect(firstLine({ source, start: 0, end: source.text.length })).toMatchObject({ start: 0, end: 2 })
})
