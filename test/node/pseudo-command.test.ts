// `inp-former pseudo` on real files: samples to look at, the same for the same seed, and clear words about defects without masks.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runCli } from '../../src/node/cli.ts';
import { decodeImageFile, encodePng } from '../../src/node/images.ts';
import { pseudoAnomalies, type PseudoAnomalyOptions } from '../../src/train/pseudo-samples.ts';
import { drawnImage } from '../support/small-encoder.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-former-pseudo-'));
  for (const path of ['good', 'defects/images', 'defects/masks', 'unmasked/images', 'unmasked/masks']) await mkdir(join(folder, path), { recursive: true });
  for (const i of [0, 1]) await writeFile(join(folder, `good/${i}.png`), await encodePng(drawnImage(`good ${i}`)));
  const mask = { width: 64, height: 64, channels: 1 as const, data: Uint8Array.from({ length: 64 * 64 }, (_, i) => (i % 64 > 20 && i % 64 < 34 && i > 64 * 20 && i < 64 * 40 ? 255 : 0)) };
  await writeFile(join(folder, 'defects/images/a.png'), await encodePng(drawnImage('bad')));
  await writeFile(join(folder, 'defects/masks/a.png'), await encodePng(mask));
  await writeFile(join(folder, 'unmasked/images/a.png'), await encodePng(drawnImage('bad')));
  await writeFile(join(folder, 'unmasked/masks/b.png'), await encodePng(mask));
});
afterAll(() => rm(folder, { recursive: true }));

async function pseudo(out: string, ...more: string[]): Promise<{ code: number; stderr: string; json: any }> {
  let [stdout, stderr] = ['', ''];
  const argv = ['pseudo', '--data', join(folder, 'good'), '--out', join(folder, out), '--count', '6', '--resize', '48', '--crop', '42', '--json', ...more];
  const code = await runCli(argv, { stdout: { write: (text) => { stdout += text; } }, stderr: { write: (text) => { stderr += text; } } });
  return { code, stderr, json: JSON.parse(stdout.trimEnd().split('\n').at(-1)!) };
}

it('writes image, mask and both beside the normal image', async () => {
  const { code, json } = await pseudo('samples');
  expect(code).toBe(0);
  expect(json.samples).toHaveLength(6);
  expect((await readdir(join(folder, 'samples'))).length).toBe(18);
  const [image, mask, both] = await Promise.all(['image', 'mask', 'side_by_side'].map((part) => decodeImageFile(join(folder, `samples/000_${part}.png`))));
  expect([image!.width, mask!.width, both!.width, both!.height]).toEqual([42, 42, 126, 42]);
  const white = Array.from({ length: 42 * 42 }, (_, i) => Number(mask!.data[3 * i] === 255)).reduce((a, b) => a + b, 0);
  expect(white / (42 * 42)).toBeCloseTo(json.samples[0].defectiveShare, 6);
});

it('writes the same for the same seed, and other samples for another', async () => {
  await pseudo('again');
  await pseudo('other', '--seed', '2');
  const all = async (out: string) => Promise.all([0, 1, 2, 3, 4, 5].map(async (i) => (await readFile(join(folder, `${out}/00${i}_image.png`))).toString('base64')));
  expect(await all('again')).toEqual(await all('samples'));
  expect(await all('other')).not.toEqual(await all('samples'));
});

it('pastes real defects, and names one without a mask', async () => {
  const { json } = await pseudo('pasted', '--defects', join(folder, 'defects'), '--defect-limit', '1', '--count', '12');
  expect(json.samples.map(({ kind }: { kind: string }) => kind)).toContain('pasted');
  const { code, stderr } = await pseudo('none', '--defects', join(folder, 'unmasked'));
  expect(code).toBe(1);
  expect(stderr).toMatch(/a\.png: this defect has no mask/);
});

it('gives a program the same samples, and says what it can\'t be given', async () => {
  const { json } = await pseudo('first');
  const images = [0, 1].map((i) => ({ name: `${i}`, load: () => decodeImageFile(join(folder, `good/${i}.png`)) }));
  const samples = [];
  for await (const sample of pseudoAnomalies({ images, count: 6, resize: 48, crop: 42 })) samples.push(sample);
  expect(samples.map(({ kind }) => kind)).toEqual(json.samples.map(({ kind }: { kind: string }) => kind));
  expect(samples.map(({ source }) => source.name)).toEqual(['0', '1', '0', '1', '0', '1']);
  expect(Buffer.from((await decodeImageFile(join(folder, 'first/002_image.png'))).data)).toEqual(Buffer.from(samples[2]!.image.data));
  const first = (options: PseudoAnomalyOptions) => pseudoAnomalies(options).next();
  await expect(first({ images: [] })).rejects.toThrow(/There are no images to make defects on/);
  await expect(first({ images, count: 0 })).rejects.toThrow(/count must be a positive integer, got 0/);
  await expect(first({ images, resize: 48, crop: 56 })).rejects.toThrow(/A crop of 56 x 56 does not fit into images resized to 48 x 48/);
});
