// What is said and drawn of prototypes, on views made by hand.
import { describe, expect, it } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { UsageError } from '../../src/errors.ts';
import type { Colour } from '../../src/inspect/heatmap.ts';
import {
  comparePartitions, drawGroup, drawPrototypes, drawSimilarity, inspectPoint, partnerColours, prototypeColour, prototypesInUse, prototypeLayer, prototypeViews, similarityLayer, summarizeGroups, summarizePrototypes, type PrototypeView,
} from '../../src/inspect/prototypes.ts';

/** Tokens that belong to the prototypes of `index` with similarity 0.9, and to others with 0.1 m. */
function viewOf(index: number[], columns: number, count: number, placement = { x: 0, y: 0, scaleX: 10, scaleY: 10 }): PrototypeView {
  const tokens = index.length;
  return {
    rows: tokens / columns, columns, count, placement, index: Uint8Array.from(index),
    similarity: Float32Array.from({ length: count * tokens }, (_, at) => (index[at % tokens] === Math.floor(at / tokens) ? 0.9 : 0.1 * Math.floor(at / tokens))),
    groups: [Float32Array.from(index, (_, token) => token / tokens), new Float32Array(tokens).fill(0.5)],
  };
}

const view = viewOf([0, 0, 1, 1, 0, 0, 1, 2], 4, 4);
const grey: RasterImage = { width: 40, height: 20, channels: 3, data: new Uint8Array(2400).fill(100) };
const pixel = ({ width, data }: RasterImage, x: number, y: number) => [...data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)];

describe('colours', () => {
  /** Viénot, Brettel and Mollon, "Digital video colourmaps for checking the legibility of displays by dichromats" (1999), in linear RGB. */
  const seenBy: Record<string, number[][]> = {
    everyone: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    deuteranopes: [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    protanopes: [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
  };
  const linear = (c: number) => (c / 255) ** 2.2;
  const seen = (colour: Colour, matrix: number[][]) => matrix.map((row) => 255 * Math.max(0, row.reduce((sum, k, i) => sum + k * linear(colour[i]!), 0)) ** (1 / 2.2));

  it.each(Object.entries(seenBy))('of six prototypes, the default, are told apart by %s', (_, matrix) => {
    for (let a = 0; a < 6; a++) {
      for (let b = 0; b < a; b++) {
        const [p, q] = [seen(prototypeColour(a), matrix), seen(prototypeColour(b), matrix)];
        expect(Math.hypot(...p.map((c, i) => c - q[i]!)), `${a} and ${b}`).toBeGreaterThan(35);
      }
    }
  });

  it('are stable, and all different up to 24', () => {
    expect(prototypeColour(0)).toEqual([230, 159, 0]);
    expect(new Set(Array.from({ length: 24 }, (_, m) => prototypeColour(m).join())).size).toBe(24);
  });
});

describe('a view', () => {
  it('is summed up by prototype', () => {
    const summary = summarizePrototypes(view);
    expect(summary.map(({ share }) => share)).toEqual([0.5, 0.375, 0.125, 0]);
    expect(summary[1]!.similarity).toBeCloseTo(0.9, 6);
    expect(summary[3]!.similarity).toBeNull();
    expect(summary[2]!.exemplar).toMatchObject({ row: 1, column: 3 });
    expect(prototypesInUse(viewOf([0, 1, 2, 3], 2, 4))).toBeCloseTo(4, 6);
    expect(prototypesInUse(viewOf([1, 1, 1, 1], 2, 4))).toBeCloseTo(1, 6);
  });

  it('is missed with advice where it was not asked for', () => {
    expect(() => prototypeViews({})).toThrow(UsageError);
    expect(prototypeViews({ tiles: [{ source: { x: 0, y: 0, width: 1, height: 1 }, score: 0, prototypes: view }] })).toEqual([view]);
  });
});

describe('a point', () => {
  const inspection = { map: Float32Array.of(0, 1, 2, 3), mapWidth: 2, mapHeight: 2, placement: { x: 0, y: 0, scaleX: 20, scaleY: 10 }, prototypes: view };

  it('has the map\'s value and the prototype that its patch was compared with', () => {
    const { value, token } = inspectPoint(inspection, 30, 15);
    expect(value).toBeCloseTo(3, 6);
    expect(token).toMatchObject({ row: 1, column: 3, prototype: 2, box: { x: 30, y: 10, width: 10, height: 10 } });
    expect(token!.similarities[2]).toBeCloseTo(0.9, 6);
    expect(token!.groups).toEqual([0.875, 0.5]);
    expect(inspectPoint(inspection, 20, 10).value).toBeCloseTo(1.5, 6);
  });

  it('outside of what the encoder saw has nothing, and without prototypes has the value alone', () => {
    expect(inspectPoint(inspection, -3, 5)).toEqual({ value: undefined });
    const { prototypes: _, ...plain } = inspection;
    expect(inspectPoint(plain, 10, 5)).toEqual({ value: 0 });
  });

  it('of overlapping tiles is that of the tile in which it lies deepest', () => {
    const tile = (x: number, index: number[]) => ({ source: { x, y: 0, width: 40, height: 20 }, score: 0, prototypes: viewOf(index, 4, 4, { x, y: 0, scaleX: 10, scaleY: 10 }) });
    const tiled = { map: new Float32Array(4), mapWidth: 2, mapHeight: 2, placement: { x: 0, y: 0, scaleX: 35, scaleY: 10 }, tiles: [tile(0, [0, 0, 0, 0, 0, 0, 0, 0]), tile(30, [3, 3, 3, 3, 3, 3, 3, 3])] };
    expect(inspectPoint(tiled, 32, 5).token!.prototype).toBe(0);
    expect(inspectPoint(tiled, 38, 5).token!.prototype).toBe(3);
  });
});

describe('groups', () => {
  it('are summed up over the map, over their own highest pixels, and over those that make the score', () => {
    // Of 400 pixels a score takes 4: two of 9 and the first two of the many of 1.
    const map = new Float32Array(400).fill(1);
    map[7] = map[301] = 9;
    const own = new Float32Array(400);
    own.set([4, 8, 0, 0, 0, 0, 0, 6]);
    const [first, second] = summarizeGroups({ map, groupMaps: [own, map] }, { mapSize: 20 });
    expect(first).toEqual({ mean: 18 / 400, highest: 18 / 4, inScore: (6 + 0 + 4 + 8) / 4 });
    expect(second).toEqual({ mean: (398 + 18) / 400, highest: 5, inScore: 5 });
    expect(() => summarizeGroups({ map }, { mapSize: 20 })).toThrow(UsageError);
  });
});

describe('pictures', () => {
  it('come without the image too, transparent where nothing was seen', () => {
    const inner = { ...view, placement: { x: 10, y: 5, scaleX: 5, scaleY: 5 } };
    const at = ({ width, data }: RasterImage, x: number, y: number) => [...data.subarray((y * width + x) * 4, (y * width + x) * 4 + 4)];
    const layer = prototypeLayer(grey, [inner], { size: 40 });
    expect([at(layer, 12, 7), at(layer, 3, 3)]).toEqual([[...prototypeColour(0), 255], [0, 0, 0, 0]]);
    const similar = similarityLayer({ width: 400, height: 200 }, [{ ...view, placement: { x: 0, y: 0, scaleX: 100, scaleY: 100 } }], 0, { size: 40 });
    expect([similar.width, similar.height]).toEqual([40, 20]);
    expect(at(similar, 3, 4)[3]).toBe(255);
    // An image's smallness is no reason for coarse borders.
    expect(prototypeLayer(grey, [view], { size: 80 })).toMatchObject({ width: 80, height: 40 });
  });

  it('show each patch in its prototype\'s colour over the grey image, and nothing where nothing was seen', () => {
    const inner = { ...view, placement: { x: 10, y: 5, scaleX: 5, scaleY: 5 } };
    const picture = drawPrototypes(grey, [inner]);
    expect([picture.width, picture.height]).toEqual([40, 20]);
    const expected = (m: number) => prototypeColour(m).map((c) => Math.floor(0.62 * c + 38));
    expect(pixel(picture, 12, 7)).toEqual(expected(0));
    expect(pixel(picture, 27, 7)).toEqual(expected(1));
    expect(pixel(picture, 28, 13)).toEqual(expected(2));
    expect(pixel(picture, 3, 3)).toEqual([100, 100, 100]);
  });

  it('are made smaller to the size asked for, and take grey images', () => {
    const big: RasterImage = { width: 400, height: 200, channels: 1, data: new Uint8Array(80_000).fill(50) };
    const picture = drawPrototypes(big, [{ ...view, placement: { x: 0, y: 0, scaleX: 100, scaleY: 100 } }], { size: 100 });
    expect([picture.width, picture.height, picture.channels]).toEqual([100, 50, 3]);
  });

  it('of similarity run from black to the prototype\'s colour, those of a group through the heat map\'s colours', () => {
    const similar = drawSimilarity(grey, [view], 1, { scale: { low: 0.1, high: 0.9 } });
    pixel(similar, 25, 4).forEach((c, i) => expect(Math.abs(c - prototypeColour(1)[i]!)).toBeLessThanOrEqual(1));
    expect(pixel(similar, 2, 4)).toEqual([0, 0, 0]);
    const group = drawGroup(grey, [view], 0, { scale: { low: 0, high: 1 } });
    expect(pixel(group, 0, 0)).not.toEqual(pixel(group, 39, 19));
  });
});

describe('two models', () => {
  it('agree fully on the same parts under other names, and the colours follow', () => {
    const renamed = viewOf([2, 2, 0, 0, 2, 2, 0, 1], 4, 3);
    const comparison = comparePartitions(view, renamed);
    expect(comparison.agreement).toBeCloseTo(1, 9);
    expect(comparison.partners).toEqual([1, 2, 0]);
    expect([0, 1, 2].map(partnerColours(comparison, 4))).toEqual([prototypeColour(1), prototypeColour(2), prototypeColour(0)]);
  });

  it('are compared on grids of their own', () => {
    const coarse = viewOf([0, 1], 2, 3, { x: 0, y: 0, scaleX: 20, scaleY: 20 });
    const { agreement, partners } = comparePartitions(view, coarse);
    expect(agreement).toBeGreaterThan(0.5);
    expect(partners).toEqual([0, 1, -1]);
    expect(partnerColours({ agreement, partners }, view.count)(2)).toEqual(prototypeColour(4));
  });

  it('that have nothing to do with each other agree by about nothing', () => {
    // Hubert and Arabie's index of [0 0 1 1] and [0 1 0 1]: -0.5.
    expect(comparePartitions(viewOf([0, 0, 1, 1], 4, 2), viewOf([0, 1, 0, 1], 4, 2)).agreement).toBeCloseTo(-0.5, 9);
  });
});
