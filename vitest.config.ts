/**
 * Suites are told apart by what a test file imports, so that none can be put into the wrong one: `gpu` reaches an
 * adapter through test/support/gpu.ts, `chrome` a browser through test/support/chrome.ts, `app` the inspection page through
 * test/support/app-page.ts, `pure` none of these. test/run.mjs runs each where it belongs; `npx vitest run test/…` runs anything, on the adapter that INP_ADAPTER names.
 */
import { defineConfig } from 'vitest/config';
import { goldenFolder } from './test/support/golden-folder.ts';
import { closureOf, filesUnder } from './test/support/modules.ts';

const suites: Record<'pure' | 'gpu' | 'chrome' | 'app', string[]> = { pure: [], gpu: [], chrome: [], app: [] };
const hasGolden = goldenFolder() !== undefined;
const onlyGolden = process.env['INP_ONLY_GOLDEN'] === '1';
for (const file of filesUnder('test', '.test.ts')) {
  const reached = closureOf(file);
  // Nothing but golden tests: without the set they would be files without a test, which vitest takes for a mistake.
  if (!hasGolden && file.startsWith('test/golden/')) continue;
  if (onlyGolden && !reached.has('test/support/golden.ts')) continue;
  suites[reached.has('test/support/app-page.ts') ? 'app' : reached.has('test/support/chrome.ts') ? 'chrome' : reached.has('test/support/gpu.ts') ? 'gpu' : 'pure'].push(file);
}

export default defineConfig({
  test: {
    // One file at a time: the software adapters use every core by themselves, and two at once only wait for each other.
    fileParallelism: false,
    projects: Object.entries(suites).map(([name, include]) => ({
      // An empty list would stand for vitest's default pattern.
      test: { name, include: include.length > 0 ? include : ['no such file'], testTimeout: 120_000, hookTimeout: 120_000, pool: 'forks' as const },
    })),
  },
});
