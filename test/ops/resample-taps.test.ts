import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { composeTaps, isIdentity, resampleTaps, transposeTaps, windowTaps, type ResampleKind, type TapTable } from '../../src/ops/resample-taps.ts';

const kinds: ResampleKind[] = ['bilinear', 'bilinear-align-corners', 'bicubic', 'bicubic-antialias', 'nearest'];
const size = fc.integer({ min: 1, max: 60 });
const anyTaps = fc.tuple(fc.constantFrom(...kinds), size, size).map(([kind, n, m]) => resampleTaps(kind, n, m));

/** The table as a dense [outputs, inputs] matrix. */
function matrix({ inputSize, outputSize, width, index, weight }: TapTable): number[][] {
  return Array.from({ length: outputSize }, (_, i) => {
    const row = Array.from({ length: inputSize }, () => 0);
    for (let t = 0; t < width; t++) row[index[t * outputSize + i]!]! += weight[t * outputSize + i]!;
    return row;
  });
}

const along = (taps: TapTable, x: readonly number[]) => matrix(taps).map((row) => row.reduce((sum, w, j) => sum + w * x[j]!, 0));

describe('resampleTaps', () => {
  test('indices lie inside and weights sum to 1', () => {
    fc.assert(fc.property(anyTaps, (taps) => {
      expect(taps.index.every((j) => j < taps.inputSize)).toBe(true);
      for (const row of matrix(taps)) expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
    }));
  });

  test('an unchanged size is the identity, except for bicubic with an offset', () => {
    for (const kind of kinds) expect(isIdentity(resampleTaps(kind, 7, 7))).toBe(true);
    expect(isIdentity(resampleTaps('bicubic', 7, 7, 0.1))).toBe(false);
    expect(isIdentity(resampleTaps('nearest', 7, 8))).toBe(false);
  });

  test('the source coordinates of each kind, on a ramp', () => {
    const ramp = Array.from({ length: 12 }, (_, j) => j);
    const [n, m] = [12, 9];
    const outputs = Array.from({ length: m }, (_, i) => i);
    const close = (kind: ResampleKind, expected: number[], offset = 0) =>
      along(resampleTaps(kind, n, m, offset), ramp).forEach((y, i) => expect(y, `${kind} ${i}`).toBeCloseTo(expected[i]!, 12));
    close('bilinear', outputs.map((i) => Math.max(((i + 0.5) * n) / m - 0.5, 0)));
    close('bilinear-align-corners', outputs.map((i) => (i * (n - 1)) / (m - 1)));
    close('nearest', outputs.map((i) => Math.floor((i * n) / m)));
    // Keys' kernel with a = -0.75 does not reproduce a ramp; halfway between two pixels, symmetry makes it.
    expect(along(resampleTaps('bicubic', 4, 2), [0, 1, 2, 3])[0]! + along(resampleTaps('bicubic', 4, 2), [0, 1, 2, 3])[1]!).toBeCloseTo(3, 12);
    expect(along(resampleTaps('bicubic', 8, 4), [0, 0, 0, 1, 0, 0, 0, 0])[1]).toBeCloseTo(((-0.75 + 2) * 0.5 - (-0.75 + 3)) * 0.25 + 1, 12);
  });

  test('the bicubic offset shifts every source', () => {
    const at = (0.5 * 5) / 4.1 - 0.5;
    const share = at - Math.floor(at);
    const cubicAt = (x: number) => ((-0.75 + 2) * x - (-0.75 + 3)) * x * x + 1;
    expect(along(resampleTaps('bicubic', 5, 4, 0.1), [0, 1, 0, 0, 0])[0]).toBeCloseTo(cubicAt(1 - share), 12);
  });

  test('antialiasing widens the kernel as much as the image shrinks', () => {
    expect(resampleTaps('bicubic-antialias', 37, 16).width).toBeGreaterThanOrEqual(9);
    expect(resampleTaps('bicubic-antialias', 16, 37).width).toBeLessThanOrEqual(5);
    // Where it grows the image it is Keys' kernel with a = -0.5: exact on a ramp, away from the border.
    const y = along(resampleTaps('bicubic-antialias', 20, 40), Array.from({ length: 20 }, (_, j) => j));
    for (let i = 8; i < 32; i++) expect(y[i]).toBeCloseTo((i + 0.5) / 2 - 0.5, 12);
  });

  test('the transpose is the transposed matrix', () => {
    fc.assert(fc.property(anyTaps, (taps) => {
      const forward = matrix(taps);
      const backward = matrix(transposeTaps(taps));
      for (let i = 0; i < taps.outputSize; i++) {
        for (let j = 0; j < taps.inputSize; j++) expect(backward[j]![i]).toBeCloseTo(forward[i]![j]!, 12);
      }
    }));
  });

  test('refuses what can not be', () => {
    expect(() => resampleTaps('bilinear', 0, 4)).toThrow(UsageError);
    expect(() => resampleTaps('bilinear', 4, 2.5)).toThrow(UsageError);
    expect(() => resampleTaps('nearest', 4, 2, 0.1)).toThrow(/bicubic/);
  });
});

describe('composed tables', () => {
  test('do at once what their parts do one after another', () => {
    for (const [tokens, crop, side] of [[16, 224, 256], [5, 70, 33], [1, 14, 8], [12, 168, 12]] as const) {
      const parts = [resampleTaps('bilinear-align-corners', tokens, crop), resampleTaps('bilinear', crop, side), windowTaps(Float64Array.of(0.25, 0.5, 0.25), side)] as const;
      const x = Array.from({ length: tokens }, (_, i) => Math.sin(3 * i + 1));
      const expected = parts.reduce<readonly number[]>((values, taps) => along(taps, values), x);
      const whole = along(composeTaps(...parts), x);
      expect(whole).toHaveLength(side);
      whole.forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 12));
    }
  });

  test('must fit', () => {
    expect(() => composeTaps(resampleTaps('bilinear', 4, 8), resampleTaps('bilinear', 9, 8))).toThrow(UsageError);
  });

  test('a window slides with zeros beyond the ends', () => {
    expect(along(windowTaps(Float64Array.of(1, 10, 100), 4), [1, 2, 3, 4])).toEqual([210, 321, 432, 43]);
  });
});
