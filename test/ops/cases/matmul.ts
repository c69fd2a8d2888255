import { input } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

interface Shape { m: number; n: number; k: number; lead?: number[] }
const shapes: Shape[] = [
  { m: 1, n: 1, k: 1 }, { m: 5, n: 3, k: 7 }, { m: 37, n: 80, k: 48, lead: [1, 37] }, { m: 65, n: 36, k: 130 },
  { m: 34, n: 33, k: 20, lead: [2, 17] }, { m: 9, n: 12, k: 1029 }, { m: 130, n: 66, k: 12 },
];

const variants = {
  small: { variant: ops.gemmVariants.small },
  register: { variant: ops.gemmVariants.register },
  tiled: { variant: ops.gemmVariants.tiled },
  'register, split': { variant: ops.gemmVariants.register, splits: 3 },
  'tiled, split': { variant: ops.gemmVariants.tiled, splits: 3 },
};

export const matmulCases: OperationCase[] = [
  {
    name: 'layerNorm', operations: [ops.layerNormOperation, ops.layerNormInputGradientOperation, ops.layerNormWeightGradientOperation],
    shapes: [[1, 3], [5, 7], [2, 3, 20], [65, 48], [130, 33], [1, 384]], differentiate: ['x', 'weight', 'bias'],
    build: (s: number[]) => ({ y: ops.layerNorm(input('x', s), input('weight', [s.at(-1)!]), input('bias', [s.at(-1)!]), 1e-6) }),
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
    name: 'linear', operations: [ops.matmulOperation, ops.sumRowsOperation], shapes, differentiate: ['x', 'weight', 'bias'],
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
    name: 'sumRows', operations: [ops.sumRowsOperation],
    shapes: [[1, 1], [3, 5], [64, 7], [65, 33], [2, 2049, 3]],
    build: (s: number[]) => ({ y: ops.sumRows(input('x', s)) }),
  },
];
