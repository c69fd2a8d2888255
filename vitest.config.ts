import { defineConfig } from 'vitest/config';

// One file at a time: the software adapters use every core by themselves, and two at once only wait for each other.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    pool: 'forks',
  },
});
