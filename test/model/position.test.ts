// The position embedding on grids that are not square, from square and other grids, against the formula written out.
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { detectorConfig } from '../../src/model/config.ts';
import { interpolatePosition } from '../../src/model/encoder.ts';
import { smallArchitecture } from '../support/small-encoder.ts';

/** Keys' cubic with a = -0.75. */
const cubic = (x: number): number => {
  const [a, t] = [-0.75, Math.abs(x)];
  return t <= 1 ? (a + 2) * t ** 3 - (a + 3) * t ** 2 + 1 : t < 2 ? a * (t ** 3 - 5 * t ** 2 + 8 * t - 4) : 0;
};

describe.each([[[4, 4], 2, 9], [[4, 4], 7, 3], [[4, 4], 4, 6], [[5, 3], 4, 4]] as const)('from %o to %i x %i', ([gridRows, gridColumns], rows, columns) => {
  it('is DINOv2\'s bicubic along each axis, and the class token\'s entry stays', () => {
    const architecture = { ...smallArchitecture, width: 4, positionGrid: [gridRows, gridColumns] as const };
    const config = detectorConfig({ architecture, crop: { height: 14 * rows, width: 14 * columns } });
    const random = new Random('position');
    const position = Float32Array.from({ length: (1 + gridRows * gridColumns) * 4 }, () => random.normal());
    const result = interpolatePosition(position, config);
    expect(result.length).toBe((1 + rows * columns) * 4);
    expect([...result.subarray(0, 4)]).toEqual([...position.subarray(0, 4)]);
    const isUnchanged = rows === gridRows && columns === gridColumns;
    const source = (i: number, from: number, to: number) => ((i + 0.5) * from) / (to + 0.1) - 0.5;
    const clamp = (i: number, size: number) => Math.min(size - 1, Math.max(0, i));
    for (let i = 0; i < rows * columns * 4; i++) {
      const [row, column, c] = [Math.floor(i / 4 / columns), Math.floor(i / 4) % columns, i % 4];
      const [y, x] = [source(row, gridRows, rows), source(column, gridColumns, columns)];
      let expected = 0;
      for (let dy = -1; dy <= 2; dy++) {
        for (let dx = -1; dx <= 2; dx++) {
          const [j, k] = [Math.floor(y) + dy, Math.floor(x) + dx];
          expected += cubic(y - j) * cubic(x - k) * position[(1 + clamp(j, gridRows) * gridColumns + clamp(k, gridColumns)) * 4 + c]!;
        }
      }
      expect(result[4 + i]).toBeCloseTo(isUnchanged ? position[4 + i]! : expected, 5);
    }
  });
});
