// Tiles without a GPU: they cover the image, their weights sum to one, a function of the place comes back as it was, and
// only one batch of them is there at a time.
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { AbortedError, UsageError } from '../../src/errors.ts';
import type { Calibration } from '../../src/inspect/calibration.ts';
import { inspectTiles, tileAxis, TiledMap, tileOf, tileOrigins, trainingTiles, type TiledModel } from '../../src/inspect/tiles.ts';
import { localLevels } from '../../src/inspect/pixel-level.ts';
import { cutView, meanOfLargest } from '../../src/inspect/view.ts';

const model: TiledModel = { resize: 56, crop: 56, mapSize: 32, view: 70 };
const gradient = (width: number, height: number, channels: 1 | 3 = 1): RasterImage => ({
  width, height, channels, data: Uint8Array.from({ length: width * height * channels }, (_, i) => (7 * (Math.floor(i / channels) % width) + 13 * Math.floor(i / channels / width) + i % channels) & 255),
});

describe('tiles along an axis', () => {
  it('cover it evenly and overlap by what was asked for, at least', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 6000 }), fc.integer({ min: 1, max: 900 }), fc.double({ min: 0, max: 0.75, noNaN: true }), (size, view, overlap) => {
      const origins = tileOrigins(size, view, overlap);
      if (size <= view) {
        expect(origins).toEqual([(size - view) / 2]);
        return;
      }
      expect(origins[0]).toBe(0);
      expect(origins.at(-1)).toBeCloseTo(size - view, 6);
      origins.slice(1).forEach((origin, i) => expect(origin - origins[i]!).toBeLessThanOrEqual((1 - overlap) * view + 1e-6));
      // One tile fewer would not do.
      if (origins.length > 2) expect((size - view) / (origins.length - 2)).toBeGreaterThan((1 - overlap) * view - 1e-6);
    }));
  });

  it('weigh to one everywhere, falling to their edges', () => {
    fc.assert(fc.property(fc.integer({ min: 10, max: 700 }), fc.integer({ min: 10, max: 200 }), fc.integer({ min: 2, max: 64 }), fc.double({ min: 0, max: 0.75, noNaN: true }), (size, view, mapSize, overlap) => {
      const { spans, mapSize: whole } = tileAxis(size, { cut: view, inset: 0, view, mapSize }, overlap);
      const sums = new Float64Array(whole);
      for (const { first, weight } of spans) weight.forEach((w, i) => { sums[first + i]! += w; });
      for (const sum of sums) expect(sum).toBeCloseTo(1, 5);
    }), { numRuns: 200 });
    const { spans } = tileAxis(300, { cut: 100, inset: 0, view: 100, mapSize: 50 }, 0.25);
    for (const [i, { weight }] of spans.entries()) {
      if (i > 0) expect(weight[0]).toBeLessThan(0.02);
      if (i < spans.length - 1) expect(weight.at(-1)).toBeLessThan(0.02);
      expect(weight[weight.length >> 1]).toBe(1);
    }
  });
});

describe('a map of tiles', () => {
  it('is the function of the place that the tiles are, away from the outermost half pixel', () => {
    const size = fc.integer({ min: 20, max: 400 });
    fc.assert(fc.property(size, size, fc.constantFrom<TiledModel>(model, { ...model, resize: 64, view: { width: 96, height: 80 } }, { ...model, crop: { width: 28, height: 56 }, mapSize: { width: 17, height: 40 } }), fc.double({ min: 0, max: 0.75, noNaN: true }), (width, height, tiled, overlap) => {
      const whole = new TiledMap({ width, height }, tiled, overlap);
      const { vertical, horizontal } = tileOf(tiled);
      const value = (x: number, y: number) => 3 + 0.5 * x - 0.25 * y;
      whole.vertical.origins.forEach((top, row) => whole.horizontal.origins.forEach((left, column) => {
        whole.add(row, column, Float32Array.from({ length: horizontal.mapSize * vertical.mapSize }, (_, i) => value(
          left + ((i % horizontal.mapSize) + 0.5) * horizontal.view / horizontal.mapSize, top + (Math.floor(i / horizontal.mapSize) + 0.5) * vertical.view / vertical.mapSize)));
      }));
      const [columns, rows] = [whole.horizontal.mapSize, whole.vertical.mapSize];
      let most = 0;
      for (let y = 1; y < rows - 1; y++) {
        for (let x = 1; x < columns - 1; x++) most = Math.max(most, Math.abs(whole.map[y * columns + x]! - value((x + 0.5) * width / columns, (y + 0.5) * height / rows)));
      }
      // Where tiles meet without overlap, up to half a tile's map pixel is held constant.
      const step = 0.5 * horizontal.view / horizontal.mapSize + 0.25 * vertical.view / vertical.mapSize;
      expect(most).toBeLessThanOrEqual(overlap >= 0.1 ? 0.06 * step + 1e-3 : step);
    }), { numRuns: 100 });
  });

  it('is refused for an overlap that there is not', () => {
    for (const overlap of [-0.1, 0.8, NaN]) expect(() => new TiledMap({ width: 9, height: 9 }, model, overlap)).toThrow(UsageError);
  });
});

describe('inspectTiles', () => {
  /** Stands in for a network: each tile's map is what a box filter makes of it. */
  const run = vi.fn(async (tiles: readonly RasterImage[]) => tiles.map((tile) => ({
    score: 1, map: Float32Array.from({ length: 32 * 32 }, (_, i) => tile.data[Math.floor(((Math.floor(i / 32) + 0.5) * tile.height) / 32) * tile.width + Math.floor((((i % 32) + 0.5) * tile.width) / 32)]! / 255),
  })));

  it('has no more tiles at a time than a batch, each cut where it says', async () => {
    const image = gradient(700, 430);
    const cuts: RasterImage[] = [];
    const seen = vi.fn();
    const { tiles, map, mapWidth, mapHeight, placement } = await inspectTiles(image, model, async (batch) => {
      expect(batch.length).toBeLessThanOrEqual(5);
      cuts.push(...batch);
      return run(batch);
    }, { batchSize: 5, onTile: seen });
    expect(tiles.length).toBe(tileOrigins(700, 70, 0.25).length * tileOrigins(430, 70, 0.25).length);
    tiles.forEach(({ cut }, i) => expect(Buffer.from(cuts[i]!.data).equals(cutView(image, cut).data as Uint8Array)).toBe(true));
    expect(seen).toHaveBeenLastCalledWith(tiles.length, tiles.length);
    expect([mapWidth, mapHeight, map.length]).toEqual([320, Math.round(430 * 32 / 70), 320 * Math.round(430 * 32 / 70)]);
    expect(placement).toEqual({ x: 0, y: 0, scaleX: 700 / mapWidth, scaleY: 430 / mapHeight });
  });

  it('scores as many pixels as one tile\'s top 1 % has, however large the image', async () => {
    const spot: RasterImage = { width: 700, height: 700, channels: 1, data: new Uint8Array(700 * 700).fill(10) };
    for (let y = 300; y < 340; y++) spot.data.fill(250, y * 700 + 300, y * 700 + 340);
    const { score, map } = await inspectTiles(spot, model, run, { batchSize: 8 });
    expect(score).toBeCloseTo(meanOfLargest(map, 10), 6);
    expect(score).toBeGreaterThan(0.95);
  });

  it('of an image of one tile is that tile\'s map, and of a smaller one its part within the image', async () => {
    const { map, tiles, mapWidth } = await inspectTiles(gradient(70, 70), model, run, { batchSize: 8 });
    expect([tiles.length, mapWidth]).toEqual([1, 32]);
    expect(map).toEqual((await run([gradient(70, 70)]))[0]!.map);
    const small = await inspectTiles(gradient(35, 20), model, run, { batchSize: 8 });
    expect([small.mapWidth, small.mapHeight, small.tiles.length]).toEqual([16, 9, 1]);
    expect(small.tiles[0]!.source).toEqual({ x: -17, y: -25, width: 70, height: 70 });
  });

  it('stops between tiles when asked', async () => {
    const controller = new AbortController();
    const attempt = inspectTiles(gradient(700, 70), model, run, { batchSize: 2, signal: controller.signal, onTile: () => controller.abort() });
    await expect(attempt).rejects.toThrow(AbortedError);
    await expect(attempt).rejects.toThrow(/after 2 of/);
  });
});

it('a plain defect does not hide a faint one elsewhere', () => {
  const map = new Float32Array(64 * 64).fill(0.1);
  map.fill(0.9, 64 * 5 + 5, 64 * 5 + 15);
  map.fill(0.4, 64 * 5 + 15, 64 * 5 + 18); // its flank
  map.fill(0.3, 64 * 50 + 40, 64 * 50 + 50);
  const levels = localLevels(map, 64, 64, { pixelThreshold: 0.2, scaleLow: 0.1 } as Calibration, 0.3);
  expect(map.filter((value, i) => value > levels[i]!).length).toBe(20);
});

it('training tiles lie side by side, or overlap evenly where they don\'t fit', () => {
  expect(trainingTiles({ width: 100, height: 50 }, 50)).toEqual([{ x: 0, y: 0, width: 50, height: 50 }, { x: 50, y: 0, width: 50, height: 50 }]);
  expect(trainingTiles({ width: 120, height: 50 }, 50).map(({ x }) => x)).toEqual([0, 35, 70]);
  expect(trainingTiles({ width: 20, height: 30 }, 50)).toEqual([{ x: -15, y: -10, width: 50, height: 50 }]);
});

describe('a cut', () => {
  it('is the image\'s part, and its mirror image beyond', () => {
    const image = gradient(5, 4, 3);
    expect(cutView(image, { x: 1, y: 1, width: 2, height: 2 }).data.slice(0, 6)).toEqual(image.data.slice(18, 24));
    const row = cutView({ width: 3, height: 1, channels: 1, data: Uint8Array.of(1, 2, 3) }, { x: -4, y: -1, width: 11, height: 2 });
    expect([...row.data]).toEqual([1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3]);
    expect([...cutView({ width: 1, height: 1, channels: 1, data: Uint8Array.of(9) }, { x: -1, y: 0, width: 3, height: 1 }).data]).toEqual([9, 9, 9]);
  });
});

it('the mean of the largest values is that of the sorted ones, ties and negative values included', () => {
  const value = fc.oneof(fc.float({ noNaN: true, min: -2, max: 2 }), fc.constantFrom(0, -0, 0.5, 0.5000001, 1));
  fc.assert(fc.property(fc.array(value, { minLength: 1, maxLength: 300 }), fc.nat(), (values, n) => {
    const count = 1 + (n % values.length);
    const sorted = Float32Array.from(values).sort().reverse().slice(0, count);
    expect(meanOfLargest(Float32Array.from(values), count)).toBeCloseTo(sorted.reduce((a, b) => a + b, 0) / count, 5);
  }));
  for (const count of [0, 4, NaN]) expect(() => meanOfLargest(new Float32Array(3), count)).toThrow(UsageError);
});
