import { input } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

const shapes = [[1], [3, 5], [7, 4], [2, 3, 13], [5, 33, 20], [1, 1, 129]];

export const pointwiseCases: OperationCase[] = [
  {
    name: 'add', operations: [ops.addOperation], shapes, differentiate: ['a', 'b'],
    build: (s: number[]) => ({ y: ops.add(input('a', s), input('b', s)) }),
  },
  {
    name: 'scale', operations: [ops.scaleOperation], shapes, differentiate: ['x'],
    build: (s: number[]) => ({ y: ops.scale(input('x', s), -0.37) }),
  },
  {
    name: 'gelu', operations: [ops.geluOperation, ops.geluGradientOperation], shapes, differentiate: ['x'],
    // 1 + erf cancels for strongly negative x in f32, as it does in PyTorch: one element alone shows it.
    tolerance: 2e-5,
    feeds: (s: number[], random) => ({ x: Float32Array.from({ length: s.reduce((a, b) => a * b) }, () => 3 * random.normal()) }),
    build: (s: number[]) => ({ y: ops.gelu(input('x', s)) }),
  },
  {
    name: 'layerScale', operations: [ops.layerScaleOperation], shapes, differentiate: ['x'],
    build: (s: number[]) => ({ y: ops.layerScale(input('x', s), input('gamma', [s.at(-1)!])) }),
  },
  {
    name: 'reshape', operations: [ops.reshapeOperation], shapes, differentiate: ['x'],
    build: (s: number[]) => ({ y: ops.scale(ops.reshape(ops.scale(input('x', s), 2), [s.reduce((a, b) => a * b)]), 3) }),
  },
];
