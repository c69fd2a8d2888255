import { differentiate } from '../../../src/graph/autograd.ts';
import { input, type Tensor } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/index.ts';
import type { Random } from '../../../src/data/random.ts';
import type { OperationCase } from '../../support/operation-case.ts';

/** [B, N, C] */
const tokenShapes = [[1, 1, 1], [2, 7, 13], [3, 25, 20], [1, 67, 129], [2, 9, 64], [4, 131, 36]];
/** [B, N, M, C] */
const prototypeShapes = [[1, 1, 1, 3], [2, 7, 5, 13], [3, 25, 6, 20], [1, 131, 9, 36], [2, 67, 17, 64], [1, 9, 8, 129]];

const normal = (random: Random, count: number, scale = 1, offset = 0) => Float32Array.from({ length: count }, () => offset + scale * random.normal());
const product = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

/** One pair of feature maps that resemble each other, as a trained decoder's do. */
function features([b, n, c]: number[], random: Random): { en: Float32Array; de: Float32Array } {
  const en = normal(random, b! * n! * c!);
  return { en, de: en.map((v) => 0.7 * v + 0.5 * random.normal()) };
}

/** The gradients of <y, gradient> by the tensors, so that the backward operations meet their own references too. */
function gradients(y: Tensor, by: Record<string, Tensor>): Record<string, Tensor> {
  const found = differentiate([{ tensor: y, gradient: input('gradient', y.shape) }], Object.values(by), ops.add);
  return Object.fromEntries(Object.keys(by).map((name, i) => [name, found[i]!]));
}

export const lossCases: OperationCase[] = [
  {
    name: 'sum', operations: [ops.sumOperation, ops.broadcastOperation],
    shapes: [[1], [3, 5], [2, 3, 13], [5, 33, 20], [2, 4096], [3, 67, 129]], differentiate: ['x'],
    feeds: (s: number[], random) => ({ x: normal(random, product(s), 1, 0.5) }),
    build: (s: number[]) => {
      const x = input('x', s);
      return { sum: ops.sum(x, -1.5), mean: ops.mean(x) };
    },
  },
  {
    name: 'broadcast', operations: [ops.broadcastOperation, ops.sumOperation], shapes: [[1], [3, 5], [2, 3, 13], [5, 33, 20], [7, 1, 129]], differentiate: ['x'],
    build: (s: number[]) => ({ y: ops.broadcast(input('x', [1]), s, 0.3) }),
  },
  {
    name: 'meanOverAll', operations: [ops.sumOperation], shapes: [[1], [3, 5], [2, 3, 13], [5, 33, 20], [7, 1, 129]], differentiate: ['a', 'b'],
    feeds: (s: number[], random) => ({ a: normal(random, product(s), 1, 1), b: normal(random, 2 * product(s), 1, 1) }),
    build: (s: number[]) => ({ y: ops.meanOverAll([input('a', s), input('b', [2, ...s])]) }),
  },
  {
    name: 'sumTokens', operations: [ops.sumTokensOperation, ops.repeatTokensOperation], shapes: tokenShapes, differentiate: ['x'],
    // Sums of numbers of both signs cancel.
    tolerance: 1e-5,
    build: (s: number[]) => ({ y: ops.sumTokens(input('x', s)) }),
  },
  {
    name: 'repeatTokens', operations: [ops.repeatTokensOperation, ops.sumTokensOperation], shapes: tokenShapes, differentiate: ['x'],
    build: ([b, n, c]: number[]) => ({ y: ops.repeatTokens(input('x', [b!, c!]), n!) }),
  },
  {
    name: 'tokenCosine', operations: [ops.tokenCosineOperation, ops.tokenCosineGradientOperation], shapes: tokenShapes, differentiate: ['a', 'b'],
    build: (s: number[]) => ({ ...ops.tokenCosine(input('a', s), input('b', s)) }),
  },
  {
    name: 'cosineMap', operations: [ops.cosineDistanceOperation, ops.cosineDistanceGradientOperation], shapes: tokenShapes.slice(1), differentiate: ['en', 'de'],
    feeds: features,
    // 1 - cos cancels where the features agree.
    tolerance: 5e-6,
    build: (s: number[]) => ({ y: ops.cosineMap(input('en', s), input('de', s)) }),
  },
  {
    name: 'vectorCosineLoss', operations: [ops.cosineDistanceOperation, ops.sumTokensOperation, ops.sumOperation], shapes: tokenShapes.slice(1), differentiate: ['en', 'de'],
    feeds: features,
    tolerance: 5e-6,
    build: (s: number[]) => ({ loss: ops.vectorCosineLoss(input('en', s), input('de', s)) }),
  },
  {
    name: 'hardMiningFactor', operations: [ops.powerOfRatioOperation], shapes: tokenShapes.slice(1),
    feeds: features,
    tolerance: 1e-5,
    build: (s: number[]) => ({ y: ops.hardMiningFactor(input('en', s), input('de', s), { power: 3 }) }),
  },
  {
    name: 'scaleTokens', operations: [ops.scaleTokensOperation], shapes: tokenShapes, differentiate: ['x'],
    build: ([b, n, c]: number[]) => ({ y: ops.scaleTokens(input('x', [b!, n!, c!]), input('factor', [b!, n!])) }),
  },
  {
    // Its gradient is not the derivative of what it computes, so no finite differences here: see 'soft mining backward' and the golden set.
    name: 'scaleTokenGradient', operations: [ops.scaleTokenGradientOperation], shapes: tokenShapes,
    build: ([b, n, c]: number[]) => ({ y: ops.scale(ops.scaleTokenGradient(ops.scale(input('x', [b!, n!, c!]), 2), input('factor', [b!, n!])), 3) }),
  },
  {
    name: 'prototypeDistance',
    operations: [ops.prototypeDistanceOperation, ops.prototypeDistanceTokenGradientOperation, ops.prototypeDistancePrototypeGradientOperation],
    shapes: prototypeShapes, differentiate: ['x', 'P'],
    build: ([b, n, m, c]: number[]) => ({ all: ops.coherenceAll(input('x', [b!, n!, c!]), input('P', [b!, m!, c!])) }),
  },
  {
    name: 'nearest', operations: [ops.nearestOperation, ops.nearestGradientOperation], shapes: [[1, 1], [3, 5], [2, 3, 13], [5, 33, 6], [7, 1, 129]], differentiate: ['x'],
    build: (s: number[]) => ({ ...ops.nearest(input('x', s)) }),
  },
  {
    name: 'coherence', operations: [ops.prototypeDistanceOperation, ops.nearestOperation], shapes: prototypeShapes, differentiate: ['x', 'P'],
    gradientOutputs: ['Lc'],
    build: ([b, n, m, c]: number[]) => {
      const { distance, index } = ops.coherence(input('x', [b!, n!, c!]), input('P', [b!, m!, c!]));
      return { distance, index, Lc: ops.mean(distance) };
    },
  },
  {
    name: 'cosine backward', operations: [ops.tokenCosineGradientOperation, ops.cosineDistanceGradientOperation], shapes: tokenShapes.slice(1),
    feeds: features,
    tolerance: 5e-6,
    build: (s: number[]) => {
      const en = input('en', s);
      const de = input('de', s);
      return gradients(ops.cosineMap(en, de), { en, de });
    },
  },
  {
    name: 'soft mining backward', operations: [ops.scaleTokenGradientOperation, ops.scaleTokensOperation, ops.powerOfRatioOperation], shapes: tokenShapes.slice(1),
    feeds: ([b, n, c]: number[], random) => {
      const [first, second] = [features([b!, n!, c!], random), features([b! + 1, n!, c!], random)];
      return { en0: first.en, de0: first.de, en1: second.en, de1: second.de };
    },
    tolerance: 1e-5,
    build: ([b, n, c]: number[]) => {
      const slices = [b!, b! + 1].map((images, i) => ({ en: input(`en${i}`, [images, n!, c!]), de: input(`de${i}`, [images, n!, c!]) }));
      const loss = ops.miningCosineLoss(slices);
      return { loss, ...gradients(loss, { de0: slices[0]!.de, de1: slices[1]!.de }) };
    },
  },
  {
    name: 'coherence backward',
    operations: [ops.prototypeDistanceTokenGradientOperation, ops.prototypeDistancePrototypeGradientOperation, ops.nearestGradientOperation], shapes: prototypeShapes,
    tolerance: 5e-6,
    build: ([b, n, m, c]: number[]) => {
      const x = input('x', [b!, n!, c!]);
      const P = input('P', [b!, m!, c!]);
      const { distance, all } = ops.coherence(x, P);
      const nearestOnly = gradients(distance, { x, P });
      const every = differentiate([{ tensor: all, gradient: input('gradient of all', all.shape) }], [x, P], ops.add);
      return { ...nearestOnly, everyX: every[0]!, everyP: every[1]! };
    },
  },
];
