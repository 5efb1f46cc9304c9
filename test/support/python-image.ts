/** This machine's Python as an image, with what it loads and nothing else: no registry is asked, and there is not even a shell in it. */
import { execFileSync, spawn } from 'node:child_process'

/** First where it is; then what belongs into the image. A shim (pyenv) or an environment leads to the real one. */
const PROGRAM = `
import os, sys, subprocess, sysconfig
real = os.path.realpath(getattr(sys, '_base_executable', sys.executable))
python, lib = os.path.join(os.path.dirname(real), 'python3'), sysconfig.get_path('stdlib')
paths, modules = {real, python, lib}, os.path.join(lib, 'lib-dynload')
for file in [real, *(os.path.join(modules, it) for it in os.listdir(modules) if 'tkinter' not in it)]:
    for line in subprocess.run(['ldd', file], capture_output=True, text=True).stdout.splitlines():
        paths.update(word for word in line.split() if word.startswith('/'))
print('\\n'.join([os.path.dirname(real), *sorted(paths)]))
`
const LEFT_OUT = ['test', 'tests', 'idlelib', 'ensurepip', 'lib2to3', 'site-packages', 'config-*', '__pycache__', '*.a']

export async function pythonImage(tag: string): Promise<void> {
  const [folder, ...paths] = execFileSync('python3', ['-c', PROGRAM], { encoding: 'utf8' }).trim().split('\n')
  const tar = spawn('tar', ['-chf', '-', ...LEFT_OUT.map((name) => `--exclude=${name}`), ...paths], { stdio: ['ignore', 'pipe', 'ignore'] })
  const made = spawn('docker', ['import', '--change', `ENV PATH=${folder}`, '-', tag], {
    stdio: [tar.stdout, 'ignore', 'inherit'],
    timeout: 120_000,
  })
  const code = await new Promise<number | null>((resolve, reject) => made.once('exit', resolve).once('error', reject))
  if (code !== 0) throw new Error(`docker import of ${tag} ended with ${code}`)
}
