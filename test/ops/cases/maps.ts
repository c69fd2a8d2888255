import { input } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { ResampleKind } from '../../../src/ops/resample-taps.ts';
import type { OperationCase } from '../../support/operation-case.ts';

interface ResampleShape {
  readonly x: number[];
  readonly to: [height: number, width: number];
}

const planes: ResampleShape[] = [
  { x: [1, 1], to: [3, 2] },
  { x: [2, 5, 5], to: [4, 4] },
  { x: [3, 4, 7], to: [15, 11] },
  { x: [1, 13, 9], to: [5, 23] },
  { x: [2, 1, 6, 8], to: [6, 3] },
  { x: [7, 5], to: [2, 5] },
];
const channelsLast: ResampleShape[] = [
  { x: [1, 5, 5, 24], to: [4, 4] },
  { x: [2, 3, 7, 5], to: [8, 2] },
  { x: [1, 9, 9, 1], to: [6, 13] },
  { x: [1, 6, 6, 4], to: [6, 3] },
  { x: [3, 2, 1, 7], to: [5, 4] },
];

function resampleCase(kind: ResampleKind, last: boolean, offset?: number): OperationCase<ResampleShape> {
  return {
    name: `resample2d ${kind}${offset === undefined ? '' : ` offset ${offset}`}${last ? ' channels last' : ''}`,
    operations: [ops.resampleOperation], shapes: last ? channelsLast : planes, differentiate: ['x'],
    build: ({ x, to: [outHeight, outWidth] }) => ({ y: ops.resample2d(input('x', x), { outHeight, outWidth, kind, channelsLast: last, ...(offset === undefined ? {} : { offset }) }) }),
  };
}

interface TopShape {
  readonly x: [rows: number, columns: number];
  readonly fraction?: number;
  readonly values?: 'ties' | 'negative' | 'equal';
}

export const mapCases: OperationCase[] = [
  resampleCase('bilinear', false),
  resampleCase('bilinear-align-corners', false),
  resampleCase('nearest', false),
  resampleCase('bicubic', true),
  resampleCase('bicubic', true, 0),
  resampleCase('bicubic-antialias', true),
  {
    name: 'gaussianBlur', operations: [ops.resampleOperation], differentiate: ['x'],
    shapes: [
      { x: [1, 1] }, { x: [2, 3, 4] }, { x: [3, 17, 9] }, { x: [1, 33, 65], size: 3, sigma: 0.7 },
      { x: [2, 2, 8, 5], size: 7, sigma: 2 }, { x: [1, 4, 4], size: 1, sigma: 4 },
    ],
    build: ({ x, size, sigma }: { x: number[]; size?: number; sigma?: number }) => ({ y: ops.gaussianBlur(input('x', x), { size, sigma }) }),
  },
  {
    name: 'topMean', operations: [ops.topMeanOperation],
    shapes: [
      { x: [1, 1] }, { x: [3, 5] }, { x: [2, 1000] }, { x: [2, 4099], fraction: 0.37 }, { x: [1, 700], fraction: 1 },
      { x: [3, 1500], fraction: 0.1, values: 'ties' }, { x: [3, 1501], fraction: 0.5, values: 'negative' }, { x: [2, 300], fraction: 0.02, values: 'equal' },
    ] satisfies TopShape[],
    // A sum of both signs cancels.
    tolerance: 5e-6,
    feeds: ({ x: [rows, columns], values }: TopShape, random) => ({
      x: Float32Array.from({ length: rows * columns }, () => {
        const value = random.normal();
        if (values === 'ties') return Math.round(2 * value) / 2;
        return values === 'negative' ? -Math.exp(value) : values === 'equal' ? -0.7 : value;
      }),
    }),
    build: ({ x, fraction }: TopShape) => ({ y: ops.topMean(input('x', x), { fraction }) }),
  },
];
