// Which images a few-shot training looks at and in which views, what the threshold comes from, and the memory's rows.
import { describe, expect, it } from 'vitest';
import { AllocationError, InputError, UsageError } from '../../src/errors.ts';
import { detectorConfig, tokenGrid } from '../../src/model/config.ts';
import { trainableShapes } from '../../src/model/parameters.ts';
import { FeatureCache } from '../../src/train/feature-cache.ts';
import { chooseShots, fewShotSources, fewShotViews, leaveOneOut, memoryViews } from '../../src/train/few-shot.ts';
import { buildMemory, checkMemorySize } from '../../src/train/memory-bank.ts';
import { findEncoder } from '../../src/weights/catalog.ts';
import { drawnSources, smallArchitecture } from '../support/small-encoder.ts';

const sources = drawnSources(12).map((source, i) => ({ ...source, category: i % 3 === 0 ? 'a' : 'b' }));
const names = (of: readonly { name: string }[]) => of.map(({ name }) => name);

describe('shots', () => {
  it('are drawn by the seed, as many of each category, whatever the others are', () => {
    const chosen = chooseShots(sources, 2, 1);
    expect(chosen.map(({ category }) => category)).toEqual(['a', 'a', 'b', 'b']);
    expect(names(chooseShots(sources, 2, 1))).toEqual(names(chosen));
    expect(names(chooseShots(sources.filter(({ category }) => category === 'b'), 2, 1))).toEqual(names(chosen.slice(2)));
    const draws = new Set(Array.from({ length: 20 }, (_, seed) => names(chooseShots(sources, 2, seed)).join()));
    expect(draws.size).toBeGreaterThan(5);
    expect(names(chooseShots(sources, 4, 3)).slice(0, 4).sort()).toEqual(names(sources.filter(({ category }) => category === 'a')).sort());
  });

  it('that a category does not have are an error that names it', () => {
    expect(() => chooseShots(sources, 5, 1)).toThrow(/category a has only 4 normal images, and 5/);
    expect(() => chooseShots(sources, 5, 1)).toThrow(InputError);
    expect(() => chooseShots(sources, 0, 1)).toThrow(UsageError);
  });

  it('come in 22 views with names of their own, and the original as it is', async () => {
    const { images, calibrationImages, shots, viewsPerShot } = fewShotSources(sources, 1, 1);
    expect([shots.length, viewsPerShot, images.length]).toEqual([2, 22, 44]);
    expect(new Set(names(images)).size).toBe(44);
    expect(images[0]).toBe(shots[0]);
    const loaded = await images[21]!.load();
    expect(loaded.view).toEqual({ matrix: [0, 1, -1, 0] });
    expect(loaded.data).toEqual((await shots[0]!.load()).data);
    // The threshold's views are none of those.
    const trained = new Set(fewShotViews.concat(memoryViews).map(({ view }) => JSON.stringify(view)));
    const others = await Promise.all(calibrationImages.map((image) => image.load()));
    expect(others.length).toBe(32);
    for (const { view } of others) expect(trained).not.toContain(JSON.stringify(view));
  });

  it('are left out by one of each category, where each has two', () => {
    const shots = chooseShots(sources, 3, 1);
    const folds = leaveOneOut(shots);
    expect(folds.map((fold) => fold.map((i) => shots[i]!.category))).toEqual([['a', 'b'], ['a', 'b'], ['a', 'b']]);
    expect(folds.flat().sort()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(leaveOneOut(chooseShots(sources, 4, 1), 2).map((fold) => fold.length)).toEqual([4, 4]);
    expect(leaveOneOut(chooseShots(sources, 1, 1))).toEqual([]);
  });
});

describe('a memory', () => {
  const config = detectorConfig({ architecture: smallArchitecture, crop: 28, method: 'memory', memoryRows: 1 });
  const { count } = tokenGrid(config);
  const width = smallArchitecture.width;
  const filledCache = async (images: number): Promise<FeatureCache> => {
    const cache = new FeatureCache(2 * count * width);
    // Token n of group g of image i points along channel i, and is longer the later it comes.
    for (let i = 0; i < images; i++) await cache.set(i, Float32Array.from({ length: 2 * count * width }, (_, at) => (at % width === i ? 1 + Math.floor(at / width) : 0)));
    return cache;
  };

  it('holds every token over its norm, in the shapes that the model file has', async () => {
    const { config: filled, values } = await buildMemory(await filledCache(3), [0, 2], config, { seed: 1 });
    expect(filled.memoryRows).toBe(2 * count);
    expect([...values].map(([name, data]) => [name, data.length])).toEqual([...trainableShapes(filled)].map(([name, [rows, c]]) => [name, rows! * c!]));
    for (const data of values.values()) {
      for (let row = 0; row < 2 * count; row++) expect(data.subarray(row * width, (row + 1) * width).indexOf(1)).toBe(row < count ? 0 : 2);
      expect(data.filter((v) => v !== 0)).toHaveLength(2 * count);
    }
  });

  it('keeps as many tokens of each image where it is limited', async () => {
    const { values } = await buildMemory(await filledCache(3), [0, 1, 2], config, { seed: 1, memoryRows: 6 });
    const of = values.get('memory.1.0')!;
    expect(Array.from({ length: 6 }, (_, row) => of.subarray(row * width, (row + 1) * width).indexOf(1))).toEqual([0, 0, 1, 1, 2, 2]);
    await expect(buildMemory(await filledCache(1), [0], config, { seed: 1, memoryRows: 0.5 })).rejects.toThrow(UsageError);
  });

  it('lies in slices that every binding holds', () => {
    const large = detectorConfig({ architecture: findEncoder('dinov2-base').architecture, crop: 392, method: 'memory', memoryRows: 100_000 });
    const rows = [...trainableShapes(large).values()].map((shape) => shape[0]!);
    expect(rows.slice(0, 3)).toEqual([43690, 43690, 12620]);
    expect(43690 * 768 * 4).toBeLessThanOrEqual(128 * 1024 ** 2);
  });

  it('that would be too large is refused before anything is encoded, with the figures and the way out', () => {
    const large = detectorConfig({ architecture: findEncoder('dinov2-base').architecture, crop: 392, method: 'memory', memoryRows: 1 });
    expect(() => checkMemorySize(large, 1000, undefined)).toThrow(AllocationError);
    expect(() => checkMemorySize(large, 1000, undefined)).toThrow(/784000 rows of 6144 bytes, 4\.5 GiB; at most 2\.0 GiB[^]*--memory-rows\) of at most 349525/);
    expect(() => checkMemorySize(large, 1000, 300_000)).not.toThrow();
  });
});
