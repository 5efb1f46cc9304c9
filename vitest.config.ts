import { defineConfig, type ViteUserConfig } from 'vitest/config'

const MINUTE = 60_000

// Groups run one after the other: the quick ones first, and the two that share one engine never beside each other.
const config: ViteUserConfig = defineConfig({
  test: {
    setupFiles: ['test/support/setup.ts'],
    globalSetup: ['test/support/setup-global.ts'],
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/golden/**/*.test.ts'],
          // More workers than cores: the slow ones start processes and wait for them.
          maxWorkers: 3,
          testTimeout: MINUTE / 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'tooling',
          include: ['test/tooling/**/*.test.ts'],
          testTimeout: 3 * MINUTE,
          hookTimeout: 3 * MINUTE,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'work',
          include: ['test/integration/{agents,broker,gateway}/**/*.test.ts'],
          // Each file has a Redis and a gateway of its own, and mostly waits.
          maxWorkers: 2,
          testTimeout: MINUTE,
          hookTimeout: 2 * MINUTE,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts', 'test/chaos/short.test.ts'],
          exclude: ['test/integration/{agents,broker,gateway}/**'],
          fileParallelism: false,
          testTimeout: MINUTE,
          hookTimeout: 2 * MINUTE,
          sequence: { groupOrder: 3 },
        },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 3 * MINUTE,
          hookTimeout: 5 * MINUTE,
          sequence: { groupOrder: 4 },
        },
      },
    ],
  },
})

export default config
