// Masks, specks and boxes, and the way from the map back to the source image, checked against where preprocessing
// really puts a pixel.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { preprocessMask } from '../../src/data/preprocess.ts';
import { UsageError } from '../../src/errors.ts';
import { boxToSource, findRegions, placeMap, SPECK_SHARE, type Box, type MapGeometry, type MapSizes } from '../../src/inspect/regions.ts';

const sizes: MapSizes = { resize: 448, crop: 392, sourceWidth: 896, sourceHeight: 448, mapWidth: 256, mapHeight: 256 };
const placed = (given: MapSizes): MapGeometry => ({ ...given, placement: placeMap(given) });
const square = placed(sizes);

function mapWith(boxes: readonly (Box & { value: number })[], width = 256, height = 256): Float32Array {
  const map = new Float32Array(width * height).fill(0.1);
  for (const box of boxes) {
    for (let y = box.y; y < box.y + box.height; y++) map.fill(box.value, y * width + box.x, y * width + box.x + box.width);
  }
  return map;
}

describe('placeMap', () => {
  it('undoes crop and resize', () => {
    expect(placeMap(sizes)).toEqual({ x: 56, y: 28, scaleX: (392 / 256) * 2, scaleY: 392 / 256 });
    expect(boxToSource({ x: 0, y: 0, width: 256, height: 256 }, square)).toEqual({ x: 56, y: 28, width: 784, height: 392 });
    const whole = placed({ ...sizes, crop: 448 });
    expect(boxToSource({ x: 0, y: 0, width: 256, height: 256 }, whole)).toEqual({ x: 0, y: 0, width: 896, height: 448 });
    expect(boxToSource({ x: 128, y: 64, width: 1, height: 2 }, whole)).toEqual({ x: 448, y: 112, width: 4, height: 4 });
  });

  it('boxes lie inside the image and cover what they stand for', () => {
    const size = fc.integer({ min: 14, max: 500 });
    fc.assert(fc.property(size, size, size, fc.integer({ min: 4, max: 64 }), fc.nat(), fc.nat(), (sourceWidth, sourceHeight, resize, map, a, b) => {
      const geometry = placed({ resize, crop: Math.max(1, resize - (a % 9)), sourceWidth, sourceHeight, mapWidth: map, mapHeight: map });
      const box = { x: a % map, y: b % map, width: 1 + (b % (map - (a % map))), height: 1 };
      const { x, y, scaleX, scaleY } = geometry.placement;
      const source = boxToSource(box, geometry);
      expect(source.x).toBeGreaterThanOrEqual(0);
      expect(source.x + source.width).toBeLessThanOrEqual(sourceWidth);
      expect(source.y + source.height).toBeLessThanOrEqual(sourceHeight);
      expect(source.x).toBeLessThanOrEqual(x + box.x * scaleX + 1e-5);
      expect(source.x + source.width).toBeGreaterThanOrEqual(x + (box.x + box.width) * scaleX - 1e-5);
      expect(source.y).toBeLessThanOrEqual(y + box.y * scaleY + 1e-5);
      expect(source.width).toBeGreaterThan(0);
      expect(source.height).toBeGreaterThan(0);
    }));
  });

  it('agrees with where preprocessing puts a painted square', () => {
    const painted: Box = { x: 300, y: 200, width: 120, height: 60 };
    const data = new Uint8Array(896 * 448);
    for (let y = painted.y; y < painted.y + painted.height; y++) data.fill(255, y * 896 + painted.x, y * 896 + painted.x + painted.width);
    const mask = preprocessMask({ width: 896, height: 448, channels: 1, data }, sizes);
    const { regions } = findRegions(Float32Array.from(mask), 0.5, square);
    expect(regions).toHaveLength(1);
    const found = regions[0]!.source;
    // A map pixel is 3 source pixels wide here.
    expect(Math.abs(found.x - painted.x)).toBeLessThanOrEqual(4);
    expect(Math.abs(found.y - painted.y)).toBeLessThanOrEqual(2);
    expect(Math.abs(found.x + found.width - painted.x - painted.width)).toBeLessThanOrEqual(4);
    expect(Math.abs(found.y + found.height - painted.y - painted.height)).toBeLessThanOrEqual(2);
  });
});

describe('findRegions', () => {
  it('finds regions above the threshold, hottest first, with peak and area', () => {
    const map = mapWith([{ x: 10, y: 20, width: 8, height: 6, value: 0.5 }, { x: 100, y: 50, width: 20, height: 10, value: 0.8 }]);
    map[55 * 256 + 110] = 0.9;
    const { regions, mask } = findRegions(map, 0.4, square);
    expect(regions.map(({ map: box, area }) => [box, area])).toEqual([
      [{ x: 100, y: 50, width: 20, height: 10 }, 200],
      [{ x: 10, y: 20, width: 8, height: 6 }, 48],
    ]);
    expect(regions[0]!.peak).toBeCloseTo(0.9, 6);
    expect(mask.reduce((sum, value) => sum + value, 0)).toBe(248);
  });

  it('joins pixels that touch at a corner, and drops specks from mask and regions', () => {
    const smallest = Math.ceil(SPECK_SHARE * 65536);
    const map = mapWith([
      { x: 0, y: 0, width: smallest - 1, height: 1, value: 1 },
      { x: 50, y: 50, width: smallest, height: 1, value: 1 },
      { x: 100, y: 100, width: 5, height: 5, value: 1 },
      { x: 105, y: 105, width: 5, height: 5, value: 1 },
    ]);
    const { regions, mask } = findRegions(map, 0.5, square);
    expect(regions.map(({ area }) => area).sort((a, b) => a - b)).toEqual([smallest, 50]);
    expect(mask[0]).toBe(0);
    expect(mask[50 * 256 + 50]).toBe(1);
  });

  it('exactly the threshold is not above it; NaN is not a defect; sizes must agree', () => {
    expect(findRegions(new Float32Array(65536).fill(0.5), 0.5, square).regions).toEqual([]);
    expect(findRegions(new Float32Array(65536).fill(NaN), 0.5, square).regions).toEqual([]);
    expect(() => findRegions(new Float32Array(10), 0.5, square)).toThrow(UsageError);
  });

  it('a whole hot map is one region of the whole crop', () => {
    const { regions } = findRegions(new Float32Array(65536).fill(1), 0.5, square);
    expect(regions).toHaveLength(1);
    expect(regions[0]!.source).toEqual({ x: 56, y: 28, width: 784, height: 392 });
  });
});
