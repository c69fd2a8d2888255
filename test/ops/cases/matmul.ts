import { input, type Tensor } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

interface Shape { m: number; n: number; k: number; lead?: number[] }
const shapes: Shape[] = [
  { m: 1, n: 1, k: 1 }, { m: 5, n: 3, k: 7 }, { m: 37, n: 80, k: 48, lead: [1, 37] }, { m: 65, n: 36, k: 130 },
  { m: 34, n: 33, k: 20, lead: [2, 17] }, { m: 9, n: 12, k: 1029 }, { m: 130, n: 66, k: 12 }, { m: 72, n: 44, k: 52 },
];

const variants = {
  small: { variant: ops.gemmVariants.small },
  register: { variant: ops.gemmVariants.register },
  exchange: { variant: ops.gemmVariants.exchange },
  tiled: { variant: ops.gemmVariants.tiled },
  tiledBlocks: { variant: ops.gemmVariants.tiledBlocks },
  tiledLarge: { variant: ops.gemmVariants.tiledLarge },
  'register, split': { variant: ops.gemmVariants.register, splits: 3 },
  'exchange, split': { variant: ops.gemmVariants.exchange, splits: 3 },
  'tiled, split': { variant: ops.gemmVariants.tiled, splits: 3 },
  'tiledLarge, split': { variant: ops.gemmVariants.tiledLarge, splits: 3 },
};

export const matmulCases: OperationCase[] = [
  {
    name: 'layerNorm', operations: [ops.layerNormOperation, ops.layerNormInputGradientOperation, ops.layerNormWeightGradientOperation],
    shapes: [[1, 3], [5, 7], [2, 3, 20], [65, 48], [130, 33], [1, 384]], differentiate: ['x', 'weight', 'bias'],
    build: (s: number[]) => ({ y: ops.layerNorm(input('x', s), input('weight', [s.at(-1)!]), input('bias', [s.at(-1)!]), 1e-6) }),
  },
  {
    name: 'stackedLayerNorm', operations: [ops.layerNormOperation, ops.layerNormInputGradientOperation, ops.layerNormWeightGradientOperation],
    shapes: [[1, 2, 3, 3], [2, 5, 7, 9], [3, 6, 20, 64], [8, 65, 48, 48], [2, 130, 33, 40]], differentiate: ['x', 'weight', 'bias'],
    build: ([d, rows, c, stride]: [number, number, number, number]) => ({ y: ops.stackedLayerNorm(input('x', [rows, c]), input('weight', [d, stride]), input('bias', [d, stride]), 1e-6) }),
  },
  {
    name: 'layerNorm with its gradient added to another', operations: [ops.layerNormInputGradientOperation, ops.addOperation],
    shapes: [[1, 3], [5, 7], [2, 3, 20], [65, 48], [130, 33]], differentiate: ['x', 'weight'],
    build: (s: number[]) => {
      const x = ops.gelu(input('x', s));
      return { y: ops.add(x, ops.layerNorm(x, input('weight', [s.at(-1)!]), input('bias', [s.at(-1)!]), 1e-6)) };
    },
  },
  ...Object.entries(variants).map(([name, tuning]): OperationCase<Shape> => ({
    name: `matmul (${name})`, operations: [ops.matmulOperation], shapes,
    build: ({ m, n, k, lead }) => ({
      nt: ops.linear(input('x', [...(lead ?? [m]), k]), input('weight', [n, k]), input('bias', [n]), tuning),
      nn: ops.matmul(input('a', [m, k]), input('b', [k, n]), { shape: [m, n], ...tuning }),
      tn: ops.matmul(input('at', [k, m]), input('bt', [k, n]), { transposeA: true, shape: [m, n], ...tuning }),
    }),
  })),
  {
    name: 'linear', operations: [ops.matmulOperation], shapes, differentiate: ['x', 'weight', 'bias'],
    build: ({ m, n, k, lead }: Shape) => ({ y: ops.linear(input('x', [...(lead ?? [m]), k]), input('weight', [n, k]), input('bias', [n])) }),
  },
  {
    name: 'linear with fused steps', operations: [ops.matmulOperation], shapes,
    tolerance: 1e-5, // GELU's cancellation, see gelu
    build: ({ m, n, k }: Shape) => {
      const h = ops.gelu(ops.linear(input('x', [m, k]), input('weight', [n, k]), input('bias', [n])));
      return { y: ops.add(input('residual', [m, n]), ops.layerScale(h, input('gamma', [n]))) };
    },
  },
  {
    name: 'linear, its value kept for the backward', operations: [ops.matmulOperation, ops.geluOperation, ops.geluGradientOperation], shapes, differentiate: ['x', 'weight', 'bias'],
    tolerance: 1e-5, // GELU's cancellation, see gelu
    build: ({ m, n, k, lead }: Shape) => ({ y: ops.gelu(ops.linear(input('x', [...(lead ?? [m]), k]), input('weight', [n, k]), input('bias', [n]))) }),
  },
  {
    name: 'stackedLinear', operations: [ops.matmulOperation], differentiate: ['x', 'weight', 'bias'],
    shapes: [
      { d: 1, m: 3, n: 2, k: 5, gap: 1 }, { d: 3, m: 6, n: 20, k: 12, gap: 0 }, { d: 8, m: 12, n: 36, k: 20, gap: 4 },
      { d: 2, m: 37, n: 33, k: 18, gap: 3 }, { d: 2, m: 96, n: 64, k: 32, gap: 0 }, { d: 5, m: 7, n: 8, k: 3, gap: 2 },
    ],
    build: ({ d, m, n, k, gap }: { d: number; m: number; n: number; k: number; gap: number }) => ({
      y: ops.stackedLinear(input('x', [d, m, k]), input('weight', [d, n * k + gap]), input('bias', [d, n + gap]), n),
    }),
  },
  {
    name: 'stack', operations: [ops.stackOperation, ops.unstackOperation], differentiate: ['a', 'b', 'c'],
    shapes: [{ size: 64, stride: 64 }, { size: 128, stride: 192 }, { size: 3, stride: 3 }, { size: 20, stride: 64 }, { size: 65, stride: 67 }],
    build: ({ size, stride }: { size: number; stride: number }) => ({
      y: ops.gelu(ops.stack([ops.gelu(input('a', [size])), input('b', [size]), ops.gelu(input('c', [size]))], [3, stride])),
    }),
  },
  {
    name: 'unstack', operations: [ops.unstackOperation, ops.stackOperation], differentiate: ['x'],
    shapes: [{ size: [64], stride: 64 }, { size: [2, 64], stride: 192 }, { size: [3], stride: 3 }, { size: [4, 5], stride: 64 }, { size: [65], stride: 67 }],
    build: ({ size, stride }: { size: number[]; stride: number }) => {
      const [a, b, c] = ops.unstack(ops.gelu(input('x', [3, stride])), size) as [Tensor, Tensor, Tensor];
      return { a: ops.gelu(a), sum: ops.add(a, c), b };
    },
  },
  {
    name: 'sumRows', operations: [ops.sumRowsOperation],
    shapes: [[1, 1], [3, 5], [64, 7], [65, 33], [2, 2049, 3]],
    build: (s: number[]) => ({ y: ops.sumRows(input('x', s)) }),
  },
];
