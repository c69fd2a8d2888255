import { input } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

/** Lengths of the tensors of a flat group; what changes in place is compared in test/ops/optimizer.test.ts. */
const shapes = [[1], [64, 5], [3, 129, 7], [5000, 2, 63], [4096, 4097, 65, 1]];

export const optimizerCases: OperationCase[] = [
  {
    // The padding between segments is not defined on the GPU, so the packed tensor is seen through an operation that skips it.
    name: 'pack', operations: [ops.packOperation, ops.gradientNormOperation], shapes,
    build: (lengths: number[]) => {
      const { segments, total } = ops.flatSegments(lengths);
      const tensors = lengths.map((length, i) => (i % 2 === 0 ? ops.scale(input(`x${i}`, [length]), 2) : input(`x${i}`, [length])));
      const gradients = ops.pack(tensors, segments.map((s) => s.offset), total);
      return { norm: ops.gradientNorm([{ gradients, segments }, { gradients, segments: segments.slice(0, 1) }]) };
    },
  },
  {
    name: 'stableAdamW', operations: [ops.stableAdamWOperation], shapes,
    feeds: (lengths: number[], random) => {
      const { total } = ops.flatSegments(lengths);
      const squares = () => Float32Array.from({ length: total }, () => 1e-5 * random.normal() ** 2);
      const secondMoment = squares();
      return {
        secondMoment, maxSecondMoment: secondMoment.map((v, i) => (i % 2 === 0 ? v : 2 * v)),
        norm: Float32Array.of(0.35), schedule: ops.stableAdamWSchedule(3, 1e-3),
      };
    },
    build: (lengths: number[]) => {
      const { segments, total } = ops.flatSegments(lengths);
      const leaf = (name: string) => input(name, [total]);
      const scale = ops.stableAdamW({
        values: leaf('values'), firstMoment: leaf('firstMoment'), secondMoment: leaf('secondMoment'), maxSecondMoment: leaf('maxSecondMoment'),
        gradients: leaf('gradients'), norm: input('norm', [1]), schedule: input('schedule', [4]),
      }, { segments });
      return { scale };
    },
  },
];
