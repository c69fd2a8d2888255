// What the cache gives back is what was put in, in memory or in the spill file, and the file does not outlive it.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { AllocationError, InputError, UsageError } from '../../src/errors.ts';
import { openSpillFile } from '../../src/node/spill.ts';
import { FeatureCache } from '../../src/train/feature-cache.ts';

const folder = mkdtempSync(join(tmpdir(), 'feature-cache-'));
afterAll(() => rmSync(folder, { recursive: true }));

const length = 301;
const random = new Random('features');
const features = Array.from({ length: 7 }, () => Float32Array.from({ length }, () => random.normal()));
const bits = (x: Float32Array) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);

it('keeps images in memory up to the cap and spills the rest, bit for bit', async () => {
  features[5]!.set([NaN, -0, Infinity, 1e-45]);
  const cache = new FeatureCache(length, { maxBytes: 3 * length * 4 + 1, spill: () => openSpillFile(folder) });
  for (const [i, values] of features.entries()) await cache.set(i, values);
  expect(cache.spilledCount).toBe(4);
  for (const i of [6, 0, 3, 5, 1, 2, 4, 5]) expect(bits(await cache.get(i))).toEqual(bits(features[i]!));
  expect(readdirSync(folder)).toHaveLength(1);
  const spilled = await Promise.all([3, 4, 5, 6].map((i) => cache.get(i)));
  spilled.forEach((values, i) => expect(bits(values)).toEqual(bits(features[i + 3]!)));
  await cache.dispose();
  expect(readdirSync(folder)).toEqual([]);
});

it('opens no file while everything fits', async () => {
  let opened = 0;
  const cache = new FeatureCache(length, { spill: () => { opened++; return openSpillFile(folder); } });
  for (const [i, values] of features.entries()) await cache.set(i, values);
  expect([opened, cache.spilledCount]).toEqual([0, 0]);
  await cache.dispose();
});

it('says what to do where nothing can be spilled, and refuses what it does not hold', async () => {
  const cache = new FeatureCache(length, { maxBytes: length * 4 });
  await cache.set(0, features[0]!);
  await expect(cache.set(1, features[1]!)).rejects.toThrow(AllocationError);
  await expect(cache.set(1, features[1]!)).rejects.toThrow(/1204 bytes each.*1204 bytes.*maxBytes/);
  await expect(cache.set(1, new Float32Array(3))).rejects.toThrow(UsageError);
  await expect(cache.get(1)).rejects.toThrow(/does not hold image 1/);
});

it('names the folder where the spill file can\'t be made', async () => {
  const missing = join(folder, 'missing');
  const cache = new FeatureCache(length, { maxBytes: 0, spill: () => openSpillFile(missing) });
  await expect(cache.set(0, features[0]!)).rejects.toThrow(InputError);
  expect(existsSync(missing)).toBe(false);
});
