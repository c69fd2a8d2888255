import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { labelRegions } from '../../src/evaluate/regions.ts';

function mask(rows: string[]): [Uint8Array, number, number] {
  return [Uint8Array.from(rows.join(''), (c) => (c === '#' ? 255 : 0)), rows[0]!.length, rows.length];
}

describe('labelRegions', () => {
  it('joins diagonal neighbours and numbers regions in raster order', () => {
    const { labels, count, regions } = labelRegions(...mask(['#...#', '.#.#.', '....#', '##...']));
    expect(count).toBe(3);
    expect([...labels]).toEqual([1, 0, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0, 0, 2, 3, 3, 0, 0, 0]);
    expect(regions).toEqual([
      { label: 1, area: 2, x: 0, y: 0, width: 2, height: 2 },
      { label: 2, area: 3, x: 3, y: 0, width: 2, height: 3 },
      { label: 3, area: 2, x: 0, y: 3, width: 2, height: 1 },
    ]);
  });

  it('merges arms that meet late', () => {
    expect(labelRegions(...mask(['#.#.#', '#.#.#', '#####'])).regions).toEqual([{ label: 1, area: 11, x: 0, y: 0, width: 5, height: 3 }]);
  });

  it('finds nothing in an empty mask and refuses a wrong size', () => {
    expect(labelRegions(new Uint8Array(6), 3, 2).count).toBe(0);
    expect(() => labelRegions(new Uint8Array(5), 3, 2)).toThrow(UsageError);
  });

  it('equals a flood fill on random masks', () => {
    fc.assert(fc.property(
      fc.integer({ min: 1, max: 12 }).chain((width) => fc.tuple(fc.constant(width), fc.array(fc.array(fc.boolean(), { minLength: width, maxLength: width }), { minLength: 1, maxLength: 12 }))),
      ([width, rows]) => {
        const pixels = Uint8Array.from(rows.flat(), Number);
        const { labels, count, regions } = labelRegions(pixels, width, rows.length);
        const expected = floodFill(pixels, width, rows.length);
        expect([...labels]).toEqual(expected);
        expect(count).toBe(Math.max(0, ...expected));
        for (const { label, area, x, y, width: w, height: h } of regions) {
          const members = expected.flatMap((l, i) => (l === label ? [[i % width, Math.floor(i / width)] as const] : []));
          const xs = members.map(([mx]) => mx);
          const ys = members.map(([, my]) => my);
          expect([area, x, y, x + w - 1, y + h - 1]).toEqual([members.length, Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
        }
      },
    ));
  });
});

function floodFill(pixels: Uint8Array, width: number, height: number): number[] {
  const labels = Array.from(pixels, () => 0);
  let label = 0;
  const visit = (x: number, y: number): void => {
    const i = y * width + x;
    if (x < 0 || y < 0 || x >= width || y >= height || pixels[i] === 0 || labels[i] !== 0) return;
    labels[i] = label;
    for (let dy = -1; dy <= 1; dy++) for (let dx = -1; dx <= 1; dx++) visit(x + dx, y + dy);
  };
  pixels.forEach((value, i) => {
    if (value === 0 || labels[i] !== 0) return;
    label++;
    visit(i % width, Math.floor(i / width));
  });
  return labels;
}
