import { differentiate } from '../../../src/graph/autograd.ts';
import { input, type Tensor } from '../../../src/graph/tensor.ts';
import { add, batchMatmul, matmulOperation, mean, scaleTokenGradientOperation, sumRowsOperation, tokenCosine } from '../../../src/ops/index.ts';
import * as plus from '../../../src/ops/plus.ts';
import type { Random } from '../../../src/data/random.ts';
import type { OperationCase } from '../../support/operation-case.ts';

/** [B, N, C] */
const tokenShapes = [[1, 1, 3], [2, 7, 13], [3, 25, 20], [1, 67, 129], [2, 9, 64], [4, 131, 36]];
/** [B, N, M, C] */
const prototypeShapes = [[1, 1, 1, 3], [2, 7, 5, 13], [3, 25, 6, 20], [1, 131, 9, 36], [2, 67, 17, 64]];

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const probabilities = (random: Random, count: number) => Float32Array.from({ length: count }, () => random.next());

/** Feature maps that resemble each other, as a trained decoder's do. */
function features(shape: readonly number[], random: Random): { en: Float32Array; de: Float32Array } {
  const en = Float32Array.from({ length: product(shape) }, () => random.normal());
  return { en, de: en.map((v) => 0.7 * v + 0.5 * random.normal()) };
}

interface Convolution { b: number; rows: number; columns: number; c: number; o: number; k: number; stride: number; padding: number }
const convolutions: Convolution[] = [
  { b: 1, rows: 1, columns: 1, c: 1, o: 1, k: 4, stride: 2, padding: 1 },
  { b: 2, rows: 3, columns: 5, c: 12, o: 4, k: 4, stride: 2, padding: 1 },
  { b: 1, rows: 7, columns: 4, c: 20, o: 7, k: 4, stride: 2, padding: 1 },
  { b: 2, rows: 6, columns: 5, c: 8, o: 1, k: 3, stride: 1, padding: 1 },
  { b: 1, rows: 3, columns: 4, c: 5, o: 8, k: 3, stride: 2, padding: 0 },
  { b: 1, rows: 9, columns: 11, c: 36, o: 12, k: 4, stride: 2, padding: 1 },
];

function transposed({ b, rows, columns, c, o, k, stride, padding }: Convolution): Tensor {
  return plus.transposedConvolution(input('x', [b, rows * columns, c]), input('weight', [c, k, k, o]), input('bias', [o]), { grid: { rows, columns }, kernel: k, stride, padding });
}

export const plusCases: OperationCase[] = [
  {
    name: 'softAssignment', operations: [plus.softAssignmentOperation, plus.softAssignmentGradientOperation], shapes: [[1, 1], [3, 5], [2, 3, 13], [5, 33, 6], [7, 1, 129]], differentiate: ['distance'],
    feeds: (s: number[], random) => ({ distance: probabilities(random, product(s)).map((v) => 2 * v) }),
    build: (s: number[]) => ({ y: plus.softAssignment(input('distance', s)) }),
  },
  {
    name: 'batchMatmul', operations: [matmulOperation], shapes: [[1, 1, 1, 1], [2, 7, 5, 13], [3, 25, 6, 20], [1, 131, 9, 36], [2, 67, 16, 64]], differentiate: ['a', 'b'],
    build: ([d, n, k, m]: number[]) => ({ y: batchMatmul(input('a', [d!, n!, k!]), input('b', [d!, k!, m!])) }),
  },
  {
    name: 'softCoherence', operations: [plus.softAssignmentOperation], shapes: prototypeShapes, differentiate: ['x', 'P'],
    build: ([b, n, m, c]: number[]) => {
      const slice = { x: input('x', [b!, n!, c!]), prototypes: input('P', [b!, m!, c!]) };
      return { ...plus.softCoherence(slice.x, slice.prototypes), loss: plus.softCoherenceLoss([slice]) };
    },
  },
  {
    name: 'tokenSquaredError', operations: [plus.tokenSquaredErrorOperation, plus.tokenSquaredErrorGradientOperation], shapes: tokenShapes, differentiate: ['en', 'de'],
    feeds: features,
    build: (s: number[]) => ({ y: plus.tokenSquaredError(input('en', s), input('de', s)) }),
  },
  {
    name: 'relativeSquaredError', operations: [plus.relativeErrorOperation], shapes: tokenShapes,
    feeds: features,
    build: (s: number[]) => {
      const [en, de] = [input('en', s), input('de', s)];
      return { y: plus.relativeSquaredError(en, de, tokenCosine(en, de).dots) };
    },
  },
  {
    name: 'residual', operations: [plus.residualOperation], shapes: tokenShapes,
    feeds: (s: number[], random) => {
      const [first, second] = [features(s, random), features(s, random)];
      return { en0: first.en, de0: first.de, en1: second.en, de1: second.de };
    },
    // 1 - cos cancels where the features agree.
    tolerance: 5e-6,
    build: (s: number[]) => ({ y: plus.residual([0, 1].map((g) => ({ en: input(`en${g}`, s), de: input(`de${g}`, s) }))) }),
  },
  {
    // Its gradient is not the derivative of what it computes: the golden set has both.
    name: 'soft mining, both branches, backward', operations: [plus.tokenSquaredErrorGradientOperation, scaleTokenGradientOperation], shapes: tokenShapes,
    feeds: features,
    tolerance: 1e-5,
    build: (s: number[]) => {
      const [en, de] = [input('en', s), input('de', s)];
      const { cosine, squaredError } = plus.softMiningLosses([{ en, de }]);
      const loss = add(cosine, squaredError);
      return { loss, gradient: differentiate([{ tensor: loss, gradient: input('seed', [1]) }], [de], add)[0]! };
    },
  },
  {
    name: 'relu', operations: [plus.reluOperation, plus.reluGradientOperation], shapes: [[1], [3, 5], [7, 4], [2, 3, 13], [5, 33, 20]], differentiate: ['x'],
    build: (s: number[]) => ({ y: plus.relu(input('x', s)) }),
  },
  {
    name: 'sigmoid', operations: [plus.sigmoidOperation, plus.sigmoidGradientOperation], shapes: [[1], [3, 5], [7, 4], [2, 3, 13], [5, 33, 20]], differentiate: ['x'],
    feeds: (s: number[], random) => ({ x: Float32Array.from({ length: product(s) }, (_, i) => (i === 3 ? -200 : 4 * random.normal())) }),
    build: (s: number[]) => ({ y: plus.sigmoid(input('x', s)) }),
  },
  {
    name: 'transposedConvolution', operations: [plus.foldOperation, plus.unfoldOperation, matmulOperation, sumRowsOperation], shapes: convolutions, differentiate: ['x', 'weight', 'bias'],
    build: (c: Convolution) => ({ y: transposed(c) }),
  },
  ...([['relu', plus.reluOperation, plus.relu], ['sigmoid', plus.sigmoidOperation, plus.sigmoid]] as const).map(([name, operation, step]): OperationCase<Convolution> => ({
    name: `transposedConvolution with a fused ${name}`, operations: [plus.foldOperation, operation], shapes: convolutions, differentiate: ['x', 'weight', 'bias'],
    build: (c) => ({ y: step(transposed(c)) }),
  })),
  ...[false, true].map((squared): OperationCase<number[]> => ({
    name: squared ? 'dice, squared' : 'dice', operations: [plus.diceOperation, plus.diceGradientOperation],
    shapes: [[1, 1], [3, 5], [2, 65, 67], [4, 1, 12, 12], [1, 4097]], differentiate: ['p'],
    feeds: (s, random) => ({ p: probabilities(random, product(s)), t: probabilities(random, product(s)).map((v) => (v > 0.8 ? 1 : 0)) }),
    build: (s) => {
      const loss = plus.dice(input('p', s), input('t', s), { squared });
      return { loss, mean: mean(loss) };
    },
  })),
];
