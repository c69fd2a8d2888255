// What autotuning found, in the cache folder: there and back, and no error where the folder can't be used.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { tuningFile } from '../../src/node/tuning-file.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-former-tuning-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

it('is kept for each adapter apart, in a folder that need not be there', async () => {
  vi.stubEnv('INP_FORMER_CACHE', join(folder, 'cache'));
  expect(await tuningFile('gpu').load()).toBeUndefined();
  await tuningFile('gpu').save('{"a":1}');
  expect(await tuningFile('gpu').load()).toBe('{"a":1}');
  expect(await tuningFile('swiftshader').load()).toBeUndefined();
  expect(await readdir(join(folder, 'cache'))).toEqual(['tuning-gpu.json']);
});

it('does without where the folder is none', async () => {
  vi.stubEnv('INP_FORMER_CACHE', join(folder, 'file'));
  await writeFile(join(folder, 'file'), 'not a folder');
  await tuningFile('gpu').save('{}');
  expect(await tuningFile('gpu').load()).toBeUndefined();
});
