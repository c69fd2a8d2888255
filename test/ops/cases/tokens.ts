import { input } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { OperationCase } from '../../support/operation-case.ts';

export const tokenCases: OperationCase[] = [
  {
    name: 'patchEmbedding', operations: [ops.patchEmbeddingOperation],
    shapes: [
      { image: [1, 3, 14, 14], patch: 14, channels: 5 },
      { image: [2, 3, 28, 42], patch: 14, channels: 48 },
      { image: [1, 3, 48, 16], patch: 16, channels: 33 },
      { image: [3, 3, 15, 25], patch: 5, channels: 7 },
      { image: [1, 3, 63, 77], patch: 7, channels: 65 },
      { image: [2, 1, 4, 6], patch: 1, channels: 1 },
    ],
    build: ({ image, patch, channels }: { image: number[]; patch: number; channels: number }) => ({
      y: ops.patchEmbedding(input('image', image), input('weight', [channels, image[1]!, patch, patch]), input('bias', [channels])),
    }),
  },
  {
    name: 'assembleTokens', operations: [ops.assembleTokensOperation],
    shapes: [
      { patches: [1, 1, 1], registers: 0 }, { patches: [2, 6, 5], registers: 4 }, { patches: [3, 16, 48], registers: 0 },
      { patches: [2, 9, 24], registers: 1 }, { patches: [1, 25, 13], registers: 3 },
    ],
    build: ({ patches, registers }: { patches: number[]; registers: number }) => {
      const [, n, c] = patches as [number, number, number];
      return {
        y: ops.assembleTokens(
          input('patches', patches), input('cls', n % 2 === 0 ? [c] : [1, 1, c]),
          registers > 0 ? input('registers', [1, registers, c]) : undefined, input('position', [1, 1 + n, c]),
        ),
      };
    },
  },
  {
    name: 'meanOfTokens', operations: [ops.meanOfOperation],
    shapes: [
      { x: [1, 2, 1], prefix: 1, count: 1 }, { x: [2, 7, 5], prefix: 5, count: 4 }, { x: [3, 6, 8], prefix: 1, count: 8 },
      { x: [2, 5, 3], prefix: 4, count: 17 }, { x: [1, 4, 12], prefix: 2, count: 6 }, { x: [2, 4, 12], prefix: 3, count: 7 },
    ],
    build: ({ x, prefix, count }: { x: number[]; prefix: number; count: number }) => ({
      y: ops.meanOfTokens(Array.from({ length: count }, (_, i) => input(`x${i}`, x)), prefix),
      dropped: ops.dropTokens(input('x', x), prefix),
    }),
  },
  {
    name: 'meanOf', operations: [ops.meanOfOperation],
    shapes: [[1], [3, 5], [2, 4, 6], [7, 129], [2, 3, 4, 5]], differentiate: ['a', 'b', 'c'],
    build: (s: number[]) => {
      const [a, b, c] = [input('a', s), input('b', s), input('c', s)];
      return { y: ops.meanOf([a, b, c]), many: ops.meanOf([a, b, a, c, c, b, a, a, b]) };
    },
  },
  {
    name: 'repeatBatch', operations: [ops.repeatBatchOperation, ops.sumBatchOperation], differentiate: ['x'],
    shapes: [{ x: [1, 1], batch: 1 }, { x: [6, 64], batch: 3 }, { x: [5, 13], batch: 4 }, { x: [7], batch: 16 }, { x: [2, 3, 5], batch: 2 }],
    build: ({ x, batch }: { x: number[]; batch: number }) => ({ y: ops.repeatBatch(input('x', x), batch) }),
  },
  {
    name: 'sumBatch', operations: [ops.sumBatchOperation, ops.repeatBatchOperation], differentiate: ['x'],
    shapes: [[1, 1], [3, 6, 64], [4, 5, 13], [16, 7], [2, 2, 3, 5]],
    build: (s: number[]) => ({ y: ops.sumBatch(input('x', s)) }),
  },
];
