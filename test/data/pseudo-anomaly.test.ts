// Made-up defects: seeded, only under their masks, in the proportions that are documented; real ones pasted whole.
import { describe, expect, it } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { perlinMask, perlinNoise } from '../../src/data/perlin.ts';
import { pseudoAnomaly, type DefectKind, type PseudoAnomalySources, type RealDefect } from '../../src/data/pseudo-anomaly.ts';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';

const [width, height] = [64, 48];

function drawn(seed: string, grey = false): RasterImage {
  const random = new Random(seed);
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const level = 110 + 30 * Math.sin(i / 9) + random.uniform(-8, 8);
    for (let c = 0; c < 3; c++) data[3 * i + c] = level + (grey ? 0 : 25 * c);
  }
  return { width, height, channels: 3, data };
}

const flat = (value: number): RasterImage => ({ width, height, channels: 3, data: new Uint8Array(width * height * 3).fill(value) });
const sample = (index: number, sources: PseudoAnomalySources = {}, image = drawn('normal')) => pseudoAnomaly(image, sources, new Random(`sample ${index}`));
const changed = (a: RasterImage, b: RasterImage) => Uint8Array.from({ length: width * height }, (_, i) => Number([0, 1, 2].some((c) => a.data[3 * i + c] !== b.data[3 * i + c])));

/** A dark square on a light surface. */
const defect: RealDefect = (() => {
  const image = flat(180);
  const mask = new Uint8Array(width * height);
  for (let y = 20; y < 30; y++) for (let x = 8; x < 20; x++) { mask[y * width + x] = 1; image.data.fill(20, 3 * (y * width + x), 3 * (y * width + x) + 3); }
  return { image, mask, regions: [{ x: 8, y: 20, width: 12, height: 10 }] };
})();

describe('Perlin masks', () => {
  it('come from noise that is 0 at its lattice points, smooth between, and within [-1.01, 1.01]', () => {
    const noise = perlinNoise(new Random(1));
    for (let i = -3; i < 4; i++) expect(noise(i, 2 * i)).toBeCloseTo(0, 12);
    let [least, most] = [0, 0];
    for (let i = 0; i < 5000; i++) {
      const [x, y] = [i * 0.377 - 900, i * 0.711 - 1700];
      const value = noise(x, y);
      expect(Math.abs(noise(x + 1e-4, y) - value)).toBeLessThan(1e-3);
      [least, most] = [Math.min(least, value), Math.max(most, value)];
    }
    expect(most).toBeGreaterThan(0.6);
    expect(most).toBeLessThan(1.01);
    expect(least).toBeLessThan(-0.6);
    expect(least).toBeGreaterThan(-1.01);
  });

  it('are of all sizes, from none to large blots, and the same for the same seed', () => {
    const shares = Array.from({ length: 200 }, (_, i) => perlinMask(width, height, new Random(`mask ${i}`)).reduce((a, b) => a + b, 0) / (width * height));
    expect(shares.filter((share) => share === 0).length).toBeGreaterThan(0);
    expect(shares.filter((share) => share > 0.02).length).toBeGreaterThan(100);
    expect(Math.max(...shares)).toBeLessThan(0.7);
    expect(perlinMask(width, height, new Random('mask 7'))).toEqual(perlinMask(width, height, new Random('mask 7')));
  });
});

describe('a made-up defect', () => {
  it('depends on image and seed alone', async () => {
    for (let i = 0; i < 8; i++) expect(await sample(i)).toEqual(await sample(i));
    expect((await sample(1)).image).not.toEqual((await sample(2)).image);
  });

  it('changes nothing outside of its mask, shows within it, and comes from textures or the image itself', async () => {
    const normal = drawn('normal');
    const kinds = new Map<DefectKind, number>();
    for (let i = 0; i < 120; i++) {
      const { image, mask, kind } = await sample(i);
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      const differs = changed(normal, image);
      expect(differs.every((d, at) => d === 0 || mask[at] === 1)).toBe(true);
      expect(mask.includes(1)).toBe(kind !== 'none');
      expect(differs.includes(1)).toBe(kind !== 'none');
    }
    expect([...kinds.keys()].sort()).toEqual(['none', 'procedural', 'shuffled']);
    expect(kinds.get('none')!).toBeGreaterThan(3);
    expect(kinds.get('none')!).toBeLessThan(30);
    expect(Math.min(kinds.get('procedural')!, kinds.get('shuffled')!)).toBeGreaterThan(25);
  });

  it('is made of the textures that are given, which are read one at a time', async () => {
    let reads = 0;
    const textures = [async () => { reads++; return flat(250); }, async () => { reads++; return { width: 5, height: 9, channels: 1 as const, data: new Uint8Array(45).fill(4) }; }];
    for (let i = 0; i < 20; i++) expect(['texture', 'none']).toContain((await sample(i, { textures })).kind);
    expect(reads).toBeGreaterThan(10);
  });

  it('has no colour on a grey image', async () => {
    for (let i = 0; i < 30; i++) {
      const { image } = await sample(i, {}, drawn('grey', true));
      for (let at = 0; at < image.data.length; at += 3) expect(Math.max(...image.data.subarray(at, at + 3)) - Math.min(...image.data.subarray(at, at + 3))).toBeLessThanOrEqual(1);
    }
  });

  it('always shows: what can\'t be seen is drawn again', async () => {
    const image = flat(128);
    let textures = 0;
    for (let i = 0; i < 40; i++) {
      const { image: result, mask, kind } = await sample(i, { textures: [async () => flat(128)] }, image);
      const changes = [...mask.keys()].filter((at) => mask[at] === 1).map((at) => Math.abs(result.data[3 * at]! - 128));
      if (kind !== 'texture') continue;
      textures++;
      expect(changes.reduce((a, b) => a + b, 0) / changes.length).toBeGreaterThanOrEqual(6);
    }
    expect(textures).toBeGreaterThan(0);
  });

  it('needs an RGB image', async () => {
    await expect(pseudoAnomaly({ width: 1, height: 1, channels: 1, data: new Uint8Array(1) }, {}, new Random(1))).rejects.toThrow(UsageError);
  });
});

describe('real defects', () => {
  it('are pasted, matched in level to where they lie, in most samples, and shown as they are in some', async () => {
    const kinds = new Map<DefectKind, number>();
    for (let i = 0; i < 150; i++) {
      const { image, mask, kind } = await sample(i, { defects: [defect] }, flat(90));
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      if (kind === 'real') expect(mask.reduce((a, b) => a + b, 0)).toBe(120);
      if (kind !== 'pasted') continue;
      const area = mask.reduce((a, b) => a + b, 0);
      expect(area).toBeGreaterThan(120 * 0.4);
      expect(area).toBeLessThan(120 * 2.2);
      const inside = [...mask.keys()].filter((at) => mask[at] === 1).map((at) => image.data[3 * at]!);
      // 160 levels below its surroundings there, so as dark as can be here.
      expect(inside.reduce((a, b) => a + b, 0) / inside.length).toBeLessThan(40);
      const outside = [...mask.keys()].filter((at) => mask[at] === 0).map((at) => image.data[3 * at]!);
      expect(outside.filter((value) => value < 85).length).toBeLessThan(0.05 * outside.length);
      expect(outside.every((value) => value <= 91)).toBe(true);
    }
    expect(kinds.get('pasted')!).toBeGreaterThan(40);
    expect(kinds.get('real')!).toBeGreaterThan(4);
    expect(kinds.get('procedural')! + kinds.get('shuffled')!).toBeGreaterThan(20);
  });

  it('that fill the image are shown, not pasted', async () => {
    const whole: RealDefect = { ...defect, regions: [] };
    for (let i = 0; i < 40; i++) expect((await sample(i, { defects: [whole] })).kind).not.toBe('pasted');
  });
});
