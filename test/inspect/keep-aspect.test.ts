// Shapes without distortion, the extension of images of another shape, and masks that take the same way as images.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { preprocessMask } from '../../src/data/preprocess.ts';
import { groundTruth } from '../../src/inspect/ground-truth.ts';
import { extended, medianShape, shapeFor, windowOf } from '../../src/inspect/keep-aspect.ts';
import type { ModelMetadata } from '../../src/inspect/model-file.ts';

const blank = (width: number, height: number): RasterImage => ({ width, height, channels: 1, data: new Uint8Array(width * height) });

describe('a model\'s shape', () => {
  it('is that of the images, on whole patches, with about as many of them as the square', () => {
    expect(shapeFor({ width: 2448, height: 1024 }, 392, 14)).toEqual({ width: 602, height: 252 });
    expect(shapeFor({ width: 1024, height: 2448 }, 392, 14)).toEqual({ width: 252, height: 602 });
    expect(shapeFor({ width: 640, height: 640 }, 392, 14)).toEqual({ width: 392, height: 392 });
    expect(shapeFor({ width: 8000, height: 1 }, 392, 14).height).toBe(14);
    const side = fc.integer({ min: 20, max: 5000 });
    fc.assert(fc.property(side, side, fc.integer({ min: 56, max: 800 }), (width, height, crop) => {
      fc.pre(Math.max(width, height) / Math.min(width, height) < 8);
      const shape = shapeFor({ width, height }, crop, 14);
      expect([shape.width % 14, shape.height % 14]).toEqual([0, 0]);
      // The image fits with at most half a patch to spare: it is not extended.
      expect(extended(blank(width, height), shape, 14).box).toBeUndefined();
    }));
  });

  it('comes from the median image', () => {
    expect(medianShape([{ width: 10, height: 30 }, { width: 200, height: 100 }, { width: 50, height: 50 }])).toEqual({ width: 50, height: 50 });
  });
});

describe('an image of another shape', () => {
  it('is extended on both sides, to the model\'s shape', () => {
    const { image, box } = extended(blank(300, 300), { width: 602, height: 252 }, 14);
    expect(box).toEqual({ x: -208, y: 0, width: 717, height: 300 });
    expect([image.width, image.height]).toEqual([717, 300]);
    expect(Math.abs(image.width / image.height - 602 / 252)).toBeLessThan(0.002);
  });

  it('has the map pixels whose centres lie in it', () => {
    expect(windowOf({ x: -10, y: 0, scaleX: 2, scaleY: 3 }, { width: 20, height: 10 }, { width: 20, height: 30 })).toEqual({ x: 5, y: 0, width: 10, height: 10 });
    expect(windowOf({ x: 4, y: -40, scaleX: 2, scaleY: 3 }, { width: 20, height: 10 }, { width: 20, height: 1 })).toEqual({ x: 0, y: 9, width: 8, height: 1 });
  });
});

describe('ground truth', () => {
  const square = { x: 60, y: 40, width: 50, height: 30 };
  const mask = blank(300, 200);
  for (let y = square.y; y < square.y + square.height; y++) mask.data.fill(255, y * 300 + square.x, y * 300 + square.x + square.width);
  const metadata = { resize: 64, crop: 56, mapSize: 48, framing: 'stretch', view: { width: 300, height: 200 }, encoder: { architecture: { patchSize: 14 } } } as ModelMetadata;
  /** Bounding box of the ones, in the image's pixels. */
  const found = (truth: Uint8Array, width: number, { x, y, scaleX, scaleY }: { x: number; y: number; scaleX: number; scaleY: number }) => {
    const ones = [...truth.keys()].filter((i) => truth[i] === 1);
    const [columns, rows] = [ones.map((i) => i % width), ones.map((i) => Math.floor(i / width))];
    return [x + Math.min(...columns) * scaleX, y + Math.min(...rows) * scaleY, x + (Math.max(...columns) + 1) * scaleX, y + (Math.max(...rows) + 1) * scaleY];
  };
  const expected = [60, 40, 110, 70];

  it('of a stretched image is the reference\'s', () => {
    expect(groundTruth(mask, { mapWidth: 48, mapHeight: 48 }, metadata)).toEqual(preprocessMask(mask, { resize: 64, crop: 56, mapSize: 48 }));
  });

  it('of an extended image and of a tiled one lies where the defect is', () => {
    const wide = { ...metadata, framing: 'keep-aspect' as const, resize: { width: 168, height: 56 }, crop: { width: 168, height: 56 }, mapSize: { width: 240, height: 80 } };
    const scale = 600 / 240;
    // 300 x 200 in the middle of 600 x 200: the middle half of the map.
    const truth = groundTruth(mask, { mapWidth: 120, mapHeight: 80 }, wide);
    expect(truth.length).toBe(120 * 80);
    found(truth, 120, { x: 0, y: 0, scaleX: scale, scaleY: scale }).forEach((edge, i) => expect(Math.abs(edge - expected[i]!)).toBeLessThanOrEqual(scale));
    const tiled = { ...metadata, framing: 'tiles' as const, resize: 56, crop: 56, view: 112, mapSize: 64 };
    const whole = { mapWidth: Math.round(300 * 64 / 112), mapHeight: Math.round(200 * 64 / 112), tiles: [] };
    const tiledTruth = groundTruth(mask, whole, tiled);
    found(tiledTruth, whole.mapWidth, { x: 0, y: 0, scaleX: 300 / whole.mapWidth, scaleY: 200 / whole.mapHeight })
      .forEach((edge, i) => expect(Math.abs(edge - expected[i]!)).toBeLessThanOrEqual(3));
  });
});
