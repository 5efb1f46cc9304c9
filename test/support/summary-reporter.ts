import { writeFileSync } from 'node:fs'
import type { Reporter, TestModule } from 'vitest/node'

/** Counts for the runner's closing line, and each skipped test with its reason, as JSON in the file AGENTCTL_TEST_SUMMARY. */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count = { passed: 0, failed: 0, skipped: 0 }
    const skipped: string[] = []
    for (const module of modules) {
      const before = count.failed
      for (const test of module.children.allTests()) {
        const result = test.result()
        if (result.state === 'passed') count.passed += 1
        else if (result.state === 'failed') count.failed += 1
        else {
          count.skipped += 1
          const note = result.state === 'skipped' ? result.note : undefined
          skipped.push(`${module.relativeModuleId} > ${test.fullName}: ${note ?? 'no reason given'}`)
        }
      }
      // A file that does not load, or a hook that fails, has no failed test to be counted by.
      if (count.failed === before && module.state() === 'failed') count.failed += 1
    }
    count.failed += errors.length
    const file = process.env['AGENTCTL_TEST_SUMMARY']
    if (file !== undefined) writeFileSync(file, JSON.stringify({ ...count, reasons: skipped }))
  }
}
