import type { Random } from '../../../src/data/random.ts';
import { input } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

interface FoldSizes {
  /** Decoder blocks. */
  readonly D: number;
  readonly B: number;
  readonly M: number;
  readonly heads: number;
  readonly d: number;
  /** Elements behind learnScale, weight and bias in each block's row. */
  readonly padding: readonly [number, number, number];
}

interface AttentionSizes {
  readonly B: number;
  readonly N: number;
  readonly M: number;
  readonly heads: number;
  readonly d: number;
}

export const foldedAttentionCases: OperationCase[] = [
  {
    name: 'foldPrototypes', operations: [ops.foldPrototypesOperation, ops.foldPrototypesGradientOperation],
    differentiate: ['keyValue', 'learnScale', 'weight', 'bias'],
    shapes: [
      { D: 2, B: 3, M: 5, heads: 3, d: 16, padding: [61, 0, 16] }, { D: 1, B: 1, M: 1, heads: 2, d: 5, padding: [0, 0, 0] },
      { D: 1, B: 2, M: 6, heads: 1, d: 68, padding: [63, 48, 60] }, { D: 2, B: 1, M: 13, heads: 5, d: 12, padding: [0, 70, 4] }, { D: 1, B: 16, M: 6, heads: 4, d: 3, padding: [2, 1, 0] },
      { D: 8, B: 1, M: 2, heads: 7, d: 4, padding: [57, 240, 36] },
    ],
    feeds({ D, heads, padding }: FoldSizes, random: Random) {
      // Scales of both signs; what lies behind them must not be read.
      return { learnScale: Float32Array.from({ length: D * (heads + padding[0]) }, (_, i) => (i % (heads + padding[0]) < heads ? (i % 2 === 0 ? 1.3 : -0.7) + 0.1 * random.normal() : 1e6)) };
    },
    build({ D, B, M, heads, d, padding }: FoldSizes) {
      const C = heads * d;
      return { ...ops.foldPrototypes({
        keyValue: input('keyValue', [D, B, M, 2 * C]), learnScale: input('learnScale', [D, heads + padding[0]]),
        weight: input('weight', [D, C * C + padding[1]]), bias: input('bias', [D, C + padding[2]]), numHeads: heads,
      }) };
    },
  },
  {
    name: 'foldedAttention', operations: [ops.foldedAttentionOperation, ops.foldedAttentionGradientOperation],
    differentiate: ['query', 'keys', 'projected'],
    shapes: [
      { B: 2, N: 37, M: 5, heads: 3, d: 16 }, { B: 1, N: 67, M: 1, heads: 2, d: 5 }, { B: 1, N: 145, M: 6, heads: 2, d: 64 }, { B: 3, N: 1, M: 13, heads: 2, d: 24 },
      { B: 2, N: 19, M: 23, heads: 1, d: 7 }, { B: 2, N: 33, M: 6, heads: 7, d: 12 },
    ],
    build({ B, N, M, heads, d }: AttentionSizes) {
      const C = heads * d;
      return { z: ops.foldedAttention({ query: input('query', [B, N, C]), keys: input('keys', [B, M, C]), projected: input('projected', [B, M * heads + 1, C]), numHeads: heads }) };
    },
  },
];
