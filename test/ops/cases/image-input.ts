import type { RasterImage } from '../../../src/data/image.ts';
import type { Random } from '../../../src/data/random.ts';
import { input, type TensorData } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

interface ResizeShape {
  readonly from: [width: number, height: number, channels: 1 | 3 | 4];
  readonly to: [width: number, height: number];
}

const sizes = ({ from: [fromWidth, fromHeight], to: [width, height] }: ResizeShape) => {
  const output = { width, height };
  return { output, capacity: ops.resizeCapacity({ width: fromWidth, height: fromHeight }, output) };
};

function noise([width, height, channels]: ResizeShape['from'], random: Random): RasterImage {
  return { width, height, channels, data: Uint8Array.from({ length: width * height * channels }, () => random.integer(256)) };
}

export const imageInputCases: OperationCase[] = [
  {
    name: 'resizeAntialiased', operations: [ops.resizeAntialiasedOperation],
    // Integers: equal or wrong.
    tolerance: 0,
    shapes: [
      { from: [1, 1, 3], to: [3, 2] }, { from: [37, 23, 3], to: [16, 16] }, { from: [20, 20, 1], to: [53, 31] },
      { from: [45, 70, 4], to: [45, 13] }, { from: [33, 9, 3], to: [33, 9] }, { from: [130, 5, 3], to: [7, 5] },
      // Columns first.
      { from: [22, 61, 3], to: [17, 16] }, { from: [13, 57, 1], to: [29, 41] },
    ] satisfies ResizeShape[],
    feeds: (shape: ResizeShape, random): Record<string, TensorData> => {
      const { capacity, output } = sizes(shape);
      return ops.resizeInputs(noise(shape.from, random), capacity, output);
    },
    build: (shape: ResizeShape) => {
      const { capacity, output } = sizes(shape);
      return { y: ops.resizeAntialiased(ops.resizeInputTensors(capacity, output), { ...output, rows: capacity.rows }) };
    },
  },
  {
    name: 'normalizeCrop', operations: [ops.normalizeCropOperation],
    shapes: [
      { width: 1, height: 1, cropWidth: 1, cropHeight: 1 }, { width: 16, height: 16, cropWidth: 14, cropHeight: 14 },
      { width: 13, height: 22, cropWidth: 10, cropHeight: 5 }, { width: 33, height: 9, cropWidth: 32, cropHeight: 9 },
      { width: 9, height: 12, cropWidth: 2, cropHeight: 7, mean: [0, 0.1, 0.9], std: [1, 0.5, 3] },
    ],
    feeds: ({ width, height }: { width: number; height: number }, random) => ({ pixels: Uint32Array.from({ length: width * height }, () => random.integer(2 ** 32)) }),
    build: (shape: Parameters<typeof ops.normalizeCrop>[1]) => ({ y: ops.normalizeCrop(input('pixels', [shape.width * shape.height], 'u32'), shape) }),
  },
];
