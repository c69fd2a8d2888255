/** What a page ships has a budget. */
import { expect, test } from 'vitest';
import { shippedBytes } from '../../bench/figures.ts';
import { projectRoot } from '../support/modules.ts';

test('core and shaders, minified and gzipped, take at most 80 kB', async () => {
  const { raw, gzip } = await shippedBytes(projectRoot);
  // Less than this would mean that the core was not in it.
  expect(raw).toBeGreaterThan(50_000);
  expect(gzip).toBeLessThanOrEqual(80_000);
});
