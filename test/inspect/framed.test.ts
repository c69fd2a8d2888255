// Framing on the GPU: prototypes come from the same submit and change nothing else; an image of one tile is inspected as it
// is without tiles; where nothing is lost, undistorted images agree with stretched ones; blended maps show no seam.
import { afterAll, describe, expect, it, vi } from 'vitest';
import { renderSample } from '../../src/data/procedural.ts';
import type { RasterImage } from '../../src/data/image.ts';
import { Engine } from '../../src/engine.ts';
import { Inspector, type Inspection } from '../../src/inspect/inspector.ts';
import { summarizeGroups } from '../../src/inspect/prototypes.ts';
import type { RandomModelOptions } from '../support/model-file.ts';
import { randomModel } from '../support/model-file.ts';
import { testGpu } from '../support/gpu.ts';
import { drawnImage, smallEncoder } from '../support/small-encoder.ts';

const encoder = await smallEncoder();
const engine = await Engine.create({ gpu: await testGpu() });
afterAll(() => engine.dispose());

const base: RandomModelOptions = { resize: 56, crop: 56, mapSize: 64, decoderDepth: 2, numPrototypes: 3 };
async function inspectWith<T>(options: Partial<RandomModelOptions>, batchSize: number, use: (inspector: Inspector) => Promise<T>): Promise<T> {
  const inspector = await Inspector.open(engine, randomModel(encoder, { ...base, ...options }), encoder, { batchSize });
  try {
    return await use(inspector);
  } finally {
    inspector.dispose();
  }
}
const images = [drawnImage('a', { width: 90, height: 56 }), drawnImage('b', { width: 56, height: 56 }), drawnImage('c', { width: 200, height: 70 })];

describe('prototypes', () => {
  it('come with the very map and score, from one submit, for each image of a batch', async () => {
    await inspectWith({}, 3, async (inspector) => {
      const plain = await inspector.inspectBatch(images);
      const detailed = await inspector.inspectBatch(images, { prototypes: true });
      detailed.forEach(({ prototypes, ...inspection }, i) => {
        expect(inspection).toEqual(plain[i]);
        const { rows, columns, count, index, similarity, groups, placement } = prototypes!;
        expect([rows, columns, count, groups.length, index.length, similarity.length]).toEqual([4, 4, 3, 2, 16, 48]);
        index.forEach((m, token) => {
          const all = [0, 1, 2].map((other) => similarity[other * 16 + token]!);
          expect(all[m]).toBe(Math.max(...all));
        });
        expect(groups.flatMap((g) => [...g]).every((error) => error >= 0 && error <= 2)).toBe(true);
        expect(placement).toEqual({ x: 0, y: 0, scaleX: images[i]!.width / 4, scaleY: images[i]!.height / 4 });
      });
      expect(new Set(detailed.map(({ prototypes }) => prototypes!.similarity.join())).size).toBe(3);
      const submit = vi.spyOn(engine.context.device.queue, 'submit');
      await inspector.inspect(images[1]!, { prototypes: true });
      expect(submit).toHaveBeenCalledTimes(1);
      submit.mockRestore();
    });
    expect(engine.context.allocatedBytes).toBe(0);
  });
});

describe('maps of the groups', () => {
  /** The largest difference between the map and the groups' mean. */
  const offMean = ({ map, groupMaps }: Inspection): number => {
    expect(groupMaps!.map(({ length }) => length)).toEqual([map.length, map.length]);
    expect(groupMaps![0]).not.toEqual(groupMaps![1]);
    return map.reduce((most, value, i) => Math.max(most, Math.abs(value - (groupMaps![0]![i]! + groupMaps![1]![i]!) / 2)), 0);
  };

  it.each<[string, Partial<RandomModelOptions>]>([
    ['prototypes', {}], ['self-attention in their place', { decoder: 'self-attention' }], ['a memory', { method: 'memory', memoryRows: 37 }],
    ['tiles', { view: 56, framing: 'tiles' }], ['undistorted images', { framing: 'keep-aspect' }],
  ])('have the very map as their mean, with %s', async (_, options) => {
    await inspectWith(options, 2, async (inspector) => {
      const plain = await inspector.inspectBatch(images);
      const detailed = await inspector.inspectBatch(images, { groups: true });
      detailed.forEach((inspection, i) => {
        expect({ ...inspection, groupMaps: undefined }).toEqual({ ...plain[i]!, groupMaps: undefined });
        expect(offMean(inspection)).toBeLessThan(1e-6);
        // What the groups have where the score is taken adds up to the score.
        const summary = summarizeGroups(inspection, inspector.metadata);
        expect(summary.reduce((sum, { inScore }) => sum + inScore / summary.length, 0)).toBeCloseTo(inspection.score, 5);
      });
    });
  });

  it('come together with prototypes, where there are any', async () => {
    await inspectWith({}, 1, async (inspector) => {
      const { prototypes, groupMaps } = await inspector.inspect(images[0]!, { prototypes: true, groups: true });
      expect([prototypes!.count, groupMaps!.length]).toEqual([3, 2]);
    });
    await inspectWith({ method: 'memory', memoryRows: 37 }, 1, async (inspector) => {
      await expect(inspector.inspect(images[0]!, { prototypes: true, groups: true })).rejects.toThrow(/makes no prototypes/);
      expect((await inspector.inspect(images[0]!)).score).toBeGreaterThan(0);
    });
  });

  it('are only a part of what INP-Former++ maps', async () => {
    await inspectWith({ distance: 'cosine+l2' }, 1, async (inspector) => {
      expect(offMean(await inspector.inspect(images[0]!, { groups: true }))).toBeGreaterThan(1e-3);
    });
  });
});

describe('tiles', () => {
  const scene = (size: number): RasterImage => renderSample({ texture: 'leather', seed: 'tiles', size, defect: { kind: 'hole', strength: 1, extent: 1 } }).image;

  it('of an image of one view are that view', async () => {
    await inspectWith({ view: 56, framing: 'tiles' }, 2, async (inspector) => {
      const [tiled, plain] = [await inspector.inspect(images[1]!), await inspector.inspect(images[1]!, { tile: false })];
      expect(tiled.map).toEqual(plain.map);
      expect(tiled.score).toBeCloseTo(plain.score, 6);
      expect(tiled.tiles).toEqual([{ source: { x: 0, y: 0, width: 56, height: 56 }, score: plain.score }]);
      expect([tiled.verdict, tiled.regions]).toEqual([plain.verdict, plain.regions]);
    });
  });

  it('are what the crop shows of an image of the view\'s size, where the model crops', async () => {
    const cropping = { resize: 64, view: 64 };
    await inspectWith(cropping, 2, async (inspector) => {
      const image = drawnImage('large', { width: 120, height: 56 });
      const { tiles } = await inspector.inspect(image, { tile: { overlap: 0 } });
      expect(tiles!.map(({ source }) => source)).toEqual([0, 32, 64].map((x) => ({ x, y: 0, width: 56, height: 56 })));
      const middle = { width: 64, height: 64, channels: 3 as const, data: new Uint8Array(64 * 64 * 3) };
      // The second tile with its border of four pixels, mirrored above and below.
      for (let y = 0; y < 64; y++) {
        const row = y < 4 ? 4 - y : y > 59 ? 114 - y : y - 4;
        middle.data.set(image.data.subarray((row * 120 + 28) * 3, (row * 120 + 92) * 3), y * 64 * 3);
      }
      expect(tiles![1]!.score).toBe((await inspector.inspect(middle)).score);
    });
  });

  it('each have prototypes of their own, placed where the tile lies', async () => {
    await inspectWith({ view: 56, framing: 'tiles' }, 4, async (inspector) => {
      const { tiles, prototypes } = await inspector.inspect(drawnImage('wide', { width: 140, height: 56 }), { prototypes: true });
      expect(prototypes).toBeUndefined();
      expect(tiles!.map((tile) => tile.prototypes!.placement.x)).toEqual(tiles!.map(({ source }) => source.x));
    });
  });

  it('blend without a seam: the map\'s steps where tiles end are no larger than elsewhere', async () => {
    const steps = async (overlap: number): Promise<{ atEdges: number; elsewhere: number }> => inspectWith({ view: 56, framing: 'tiles' }, 8, async (inspector) => {
      const { map, mapWidth, mapHeight, tiles } = await inspector.inspect(scene(168), { tile: { overlap } });
      const edges = new Set(tiles!.flatMap(({ source }) => [source.x, source.x + source.width]).filter((x) => x > 0 && x < 168).map((x) => Math.round((x * mapWidth) / 168)));
      let [atEdges, elsewhere, counted] = [0, 0, 0];
      for (let x = 4; x < mapWidth - 4; x++) {
        let step = 0;
        for (let y = 0; y < mapHeight; y++) step += Math.abs(map[y * mapWidth + x]! - map[y * mapWidth + x - 1]!) / mapHeight;
        if (edges.has(x)) atEdges = Math.max(atEdges, step);
        else {
          elsewhere += step;
          counted++;
        }
      }
      return { atEdges, elsewhere: elsewhere / counted };
    });
    const [blended, side] = [await steps(0.25), await steps(0)];
    expect(blended.atEdges).toBeLessThan(1.5 * blended.elsewhere);
    // Without overlap they do show, so the measure can tell.
    expect(side.atEdges).toBeGreaterThan(2 * side.elsewhere);
  });
});

describe('undistorted images', () => {
  const wide = { resize: { width: 84, height: 28 }, crop: { width: 84, height: 28 }, mapSize: { width: 96, height: 32 }, framing: 'keep-aspect' as const };

  it('of the model\'s shape are those of a stretched one, to the bit', async () => {
    const image = drawnImage('shape', { width: 168, height: 57 });
    const alike = await inspectWith(wide, 1, (inspector) => inspector.inspect(image, { prototypes: true }));
    expect(alike).toEqual(await inspectWith({ ...wide, framing: 'stretch' }, 1, (inspector) => inspector.inspect(image, { prototypes: true })));
    expect([alike.mapWidth, alike.mapHeight, alike.prototypes!.columns, alike.prototypes!.rows]).toEqual([96, 32, 6, 2]);
  });

  it('of another shape have a map of themselves alone, and a score from it', async () => {
    const image = drawnImage('square', { width: 80, height: 80 });
    const found = await inspectWith(wide, 2, (inspector) => inspector.inspectBatch([images[1]!, image], { prototypes: true })).then((both): Inspection => both[1]!);
    const { map, mapWidth, mapHeight, score, mask, placement, prototypes } = found;
    expect([mapWidth, mapHeight, map.length, mask.length]).toEqual([32, 32, 1024, 1024]);
    expect(placement.x).toBeCloseTo(0, 6);
    expect(placement.scaleX).toBeCloseTo(2.5, 6);
    expect(score).toBeCloseTo([...map].sort((a, b) => b - a).slice(0, 10).reduce((a, b) => a + b) / 10, 5);
    // The grid keeps its tokens beyond the image.
    expect(prototypes!.placement.x).toBeCloseTo(-80, 6);
    expect(found.regions.every(({ source }) => source.x >= 0 && source.x + source.width <= 80)).toBe(true);
  });
});
