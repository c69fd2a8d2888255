import { input, type Tensor } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

interface AttentionSizes {
  readonly B: number;
  readonly Nq: number;
  readonly Nk: number;
  readonly heads: number;
  readonly d: number;
}

/** y together with the log-sum-exp, which only the forward comparison looks at. */
function withLogSumExp(y: Tensor): Record<string, Tensor> {
  return { y, logSumExp: y.node.outputs[1]! };
}

const separate = ({ B, Nq, Nk, heads, d }: AttentionSizes): [Tensor, Tensor, Tensor] => [
  input('q', [B, Nq, heads * d]), input('k', [B, Nk, heads * d]), input('v', [B, Nk, heads * d]),
];

interface PrototypeSizes {
  readonly B: number;
  readonly N: number;
  readonly M: number;
  readonly heads: number;
  readonly d: number;
}

/** The learnScale of every other head is negative. */
const learnScale = ({ heads }: PrototypeSizes): { learnScale: Float32Array } => ({ learnScale: Float32Array.from({ length: heads }, (_, h) => (h % 2 === 0 ? 1.3 : -0.7)) });

const softmaxOperations = [ops.softmaxAttentionOperation, ops.softmaxAttentionGradientOperation];

export const attentionCases: OperationCase[] = [
  {
    name: 'softmaxAttention', operations: softmaxOperations, differentiate: ['q', 'k', 'v'], gradientOutputs: ['y'],
    shapes: [
      { B: 2, Nq: 37, Nk: 37, heads: 3, d: 16 }, { B: 1, Nq: 6, Nk: 67, heads: 2, d: 5 }, { B: 3, Nq: 1, Nk: 13, heads: 1, d: 24 },
      { B: 1, Nq: 6, Nk: 261, heads: 2, d: 64 }, { B: 1, Nq: 145, Nk: 145, heads: 1, d: 64 },
      { B: 1, Nq: 67, Nk: 3, heads: 2, d: 1 }, { B: 1, Nq: 2, Nk: 700, heads: 3, d: 32 },
    ],
    build(s: AttentionSizes) {
      const [q, k, v] = separate(s);
      return withLogSumExp(ops.softmaxAttention({ query: ops.channels(q), key: ops.channels(k), value: ops.channels(v), numHeads: s.heads }));
    },
  },
  {
    // As the encoder computes it: queries, keys and values side by side in one tensor.
    name: 'softmaxAttention of one linear', operations: softmaxOperations, differentiate: ['qkv'], gradientOutputs: ['y'],
    shapes: [
      { B: 2, Nq: 37, heads: 3, d: 16 }, { B: 1, Nq: 67, heads: 2, d: 5 }, { B: 1, Nq: 2, heads: 1, d: 24 }, { B: 1, Nq: 33, heads: 2, d: 64 }, { B: 3, Nq: 13, heads: 4, d: 7 },
    ],
    build({ B, Nq, heads, d }: AttentionSizes) {
      const [qkv, C] = [input('qkv', [B, Nq, 3 * heads * d]), heads * d];
      return withLogSumExp(ops.softmaxAttention({ query: ops.channels(qkv, 0, C), key: ops.channels(qkv, C, C), value: ops.channels(qkv, 2 * C, C), numHeads: heads }));
    },
  },
  {
    // A token sees none of its neighbours; the grids are no squares, and rows of parts, tiles and blocks are masked as a whole.
    name: 'softmaxAttention without neighbours', operations: softmaxOperations, differentiate: ['q', 'kv'], gradientOutputs: ['y'],
    shapes: [
      { B: 2, rows: 5, columns: 7, radius: 1, heads: 2, d: 8 }, { B: 1, rows: 3, columns: 4, radius: 0, heads: 1, d: 5 }, { B: 1, rows: 1, columns: 11, radius: 2, heads: 3, d: 7 }, { B: 2, rows: 8, columns: 3, radius: 3, heads: 1, d: 64 },
      { B: 1, rows: 16, columns: 9, radius: 3, heads: 2, d: 16 },
    ],
    build({ B, rows, columns, radius, heads, d }: { B: number; rows: number; columns: number; radius: number; heads: number; d: number }) {
      const [N, C] = [rows * columns, heads * d];
      const [q, kv] = [input('q', [B, N, C]), input('kv', [B, N, 2 * C])];
      return withLogSumExp(ops.softmaxAttention({ query: ops.channels(q), key: ops.channels(kv, 0, C), value: ops.channels(kv, C, C), numHeads: heads, masked: { columns, radius } }));
    },
  },
  {
    // As the extractor does: keys and values of one linear; and two channels that nobody reads, whose gradient is 0.
    name: 'softmaxAttention of packed keys and values', operations: softmaxOperations, differentiate: ['q', 'kv'], gradientOutputs: ['y'],
    shapes: [
      { B: 2, Nq: 6, Nk: 49, heads: 3, d: 16 }, { B: 1, Nq: 6, Nk: 261, heads: 2, d: 64 }, { B: 2, Nq: 5, Nk: 67, heads: 2, d: 5 }, { B: 1, Nq: 1, Nk: 2, heads: 1, d: 24 }, { B: 1, Nq: 13, Nk: 70, heads: 2, d: 12 },
    ],
    build({ B, Nq, Nk, heads, d }: AttentionSizes) {
      const C = heads * d;
      const [q, kv] = [input('q', [B, Nq, C]), input('kv', [B, Nk, 2 * C + 2])];
      return withLogSumExp(ops.softmaxAttention({ query: ops.channels(q), key: ops.channels(kv, 1, C), value: ops.channels(kv, C + 2, C), numHeads: heads }));
    },
  },
  {
    // The same channels in two roles: one input twice, whose gradients add up. And keys that need no gradient.
    name: 'softmaxAttention of shared channels', operations: softmaxOperations, differentiate: ['x'], gradientOutputs: ['y'],
    shapes: [
      { B: 2, Nq: 37, heads: 3, d: 16 }, { B: 1, Nq: 19, heads: 2, d: 5 }, { B: 1, Nq: 2, heads: 1, d: 24 }, { B: 1, Nq: 66, heads: 1, d: 64 }, { B: 2, Nq: 13, heads: 2, d: 8 },
    ],
    build({ B, Nq, heads, d }: AttentionSizes) {
      const [x, k] = [input('x', [B, Nq, heads * d]), input('k', [B, Nq, heads * d])];
      return withLogSumExp(ops.softmaxAttention({ query: ops.channels(x), key: ops.channels(k), value: ops.channels(x), numHeads: heads }));
    },
  },
  {
    // One key has probability 1, so queries and keys have no gradient but that of the sum with themselves.
    name: 'softmaxAttention to one key', operations: softmaxOperations, differentiate: ['q', 'k', 'v'],
    shapes: [
      { B: 2, Nq: 5, Nk: 1, heads: 2, d: 64 }, { B: 1, Nq: 1, Nk: 1, heads: 1, d: 24 }, { B: 1, Nq: 37, Nk: 1, heads: 3, d: 5 }, { B: 3, Nq: 2, Nk: 1, heads: 2, d: 16 }, { B: 1, Nq: 9, Nk: 1, heads: 1, d: 1 },
    ],
    build(s: AttentionSizes) {
      const [q, k, v] = separate(s);
      const attended = ops.softmaxAttention({ query: ops.channels(q), key: ops.channels(k), value: ops.channels(v), numHeads: s.heads });
      return { y: ops.add(attended, q), k: ops.scale(k, 2) };
    },
  },
  {
    name: 'prototypeAttentionWeights', operations: [ops.prototypeAttentionWeightsOperation], feeds: learnScale,
    shapes: [
      { B: 2, N: 37, M: 5, heads: 3, d: 16 }, { B: 1, N: 67, M: 1, heads: 2, d: 5 }, { B: 1, N: 145, M: 6, heads: 2, d: 64 }, { B: 3, N: 1, M: 13, heads: 2, d: 24 }, { B: 2, N: 19, M: 23, heads: 1, d: 7 },
    ],
    build({ B, N, M, heads, d }: PrototypeSizes) {
      const [q, k] = [input('q', [B, N, heads * d]), input('k', [B, M, heads * d])];
      return { a: ops.prototypeAttentionWeights({ query: ops.channels(q), key: ops.channels(k), learnScale: input('learnScale', [heads]), numHeads: heads }) };
    },
  },
];
