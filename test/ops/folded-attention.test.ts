/**
 * What the table of operations can't show of the folded attention: that it is ReLU attention followed by the
 * projection, the kernels that real GPUs get (the adapters of the tests are CPUs), rows of zero or nearly zero norm,
 * gradients that nobody wants, and shapes that are refused.
 */
import { describe, expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';
import { defaultTarget } from '../../src/gpu/target.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor } from '../../src/graph/tensor.ts';
import * as operations from '../../src/ops/index.ts';
import { foldedVariant } from '../../shaders/folded-attention.wgsl.ts';
import { foldedAttentionCases } from './cases/folded-attention.ts';
import { check, type Feeds } from '../support/check-graph.ts';
import { expectClose } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';
import { leavesOf, makeFeeds, runOnce } from '../support/operation-run.ts';

const [foldCase, attentionCase] = foldedAttentionCases as [typeof foldedAttentionCases[0], typeof foldedAttentionCases[0]];

/** The gradients of the inputs named, given random gradients of all outputs. */
function gradientsOf(built: Record<string, Tensor>, wanted: readonly string[]): Record<string, Tensor> {
  const seeds = Object.entries(built).map(([name, tensor]) => ({ tensor, gradient: input(`gradient of ${name}`, tensor.shape) }));
  const leaves = leavesOf(Object.values(built)).filter((t) => wanted.includes(t.node.name));
  const gradients = differentiate(seeds, leaves, operations.add);
  return Object.fromEntries(leaves.map((t, i) => [`gradient by ${t.node.name}`, gradients[i]!]));
}

// Small heads: GPUs' kernels are not kept from being unrolled, which takes CPU adapters' compilers long.
const cases = [
  [foldCase, [{ D: 2, B: 3, M: 3, heads: 3, d: 4, padding: [61, 4, 16] }, { D: 1, B: 2, M: 1, heads: 2, d: 5, padding: [0, 3, 0] }]],
  [attentionCase, [{ B: 2, N: 37, M: 5, heads: 3, d: 4 }, { B: 1, N: 3, M: 9, heads: 2, d: 5 }, { B: 1, N: 9, M: 16, heads: 16, d: 2 }]],
].flatMap(([c, shapes]) => (shapes as object[]).map((shape) => [(c as typeof foldCase).name, JSON.stringify(shape), c as typeof foldCase, shape] as const));

describe('the variants for GPUs', () => {
  test.each(cases)('%s %s', async (name, label, c, shape) => {
    const built = c.build(shape);
    const outputs = { ...built, ...gradientsOf(built, c.differentiate!) };
    await check(outputs, makeFeeds(c, shape, Object.values(outputs), new Random(`${name} ${label}`)) as Feeds, 1e-5, 'gpu');
  });
});

describe.each([
  [foldCase, { D: 2, B: 2, M: 3, heads: 2, d: 8, padding: [2, 4, 0] }, [['keyValue'], ['learnScale'], ['weight'], ['bias'], ['learnScale', 'weight']], [2, 1, 1, 1, 2, 3]],
  [attentionCase, { B: 2, N: 21, M: 3, heads: 2, d: 8 }, [['query'], ['keys'], ['projected'], ['query', 'projected']], [1, 2, 2, 2, 2]],
] as const)('%#', (c, shape, subsets, kernels) => {
  test(`${c.name} computes only the gradients that are wanted`, async () => {
    const built = c.build(shape);
    const sets = [...subsets, c.differentiate!];
    expect(sets.map((wanted) => compile({ target: defaultTarget, outputs: gradientsOf(built, wanted) }).dispatches.length)).toEqual(kernels);
    for (const wanted of subsets) {
      const outputs = gradientsOf(built, wanted);
      await check(outputs, makeFeeds(c, shape, Object.values(outputs), new Random('wanted')) as Feeds, 1e-5);
    }
  });
});

test('folded attention is ReLU attention followed by the projection', () => {
  const [B, N, M, heads, C] = [2, 5, 3, 2, 6];
  const d = C / heads;
  const shapes = { keyValue: [1, B, M, 2 * C], scale: [1, heads], weight: [1, C * C], bias: [1, C], query: [B, N, C] };
  const [keyValue, learnScale, weight, bias, query] = Object.entries(shapes).map(([name, shape]) => input(name, shape)) as [Tensor, Tensor, Tensor, Tensor, Tensor];
  const { keys, projected } = operations.foldPrototypes({ keyValue, learnScale, weight, bias, numHeads: heads });
  const folded = operations.foldedAttention({ query, keys: operations.reshape(keys, [B, M, C]), projected: operations.reshape(projected, [B, M * heads + 1, C]), numHeads: heads });
  const random = new Random('folded and plain');
  const feeds = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random.normal())])) as Record<keyof typeof shapes, Float32Array>;
  const [z] = interpret([folded], new Map(Object.entries(feeds)));

  const head = (x: Float32Array, start: number, h: number): number[] => [...x.subarray(start + h * d, start + (h + 1) * d)];
  const cosine = (a: number[], b: number[]): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0) / Math.hypot(...a) / Math.hypot(...b);
  const expected = new Float64Array(B * N * C);
  for (let row = 0; row < B * N; row++) {
    const gathered = new Float64Array(C);
    for (let h = 0; h < heads; h++) {
      for (let m = 0; m < M; m++) {
        const at = (Math.floor(row / N) * M + m) * 2 * C;
        const a = Math.max(0, feeds.scale[h]! * cosine(head(feeds.query, row * C, h), head(feeds.keyValue, at, h)));
        head(feeds.keyValue, at + C, h).forEach((v, i) => { gathered[h * d + i]! += a * v; });
      }
    }
    for (let o = 0; o < C; o++) expected[row * C + o] = gathered.reduce((sum, v, i) => sum + v * feeds.weight[o * C + i]!, feeds.bias[o]!);
  }
  expectClose(z!, expected, { relL2: 1e-12, name: 'z' });
});

test('an image gets the same bits in a batch as alone', async () => {
  const [N, M, heads, C] = [45, 3, 2, 24];
  const random = new Random('batch');
  const draw = (length: number): Float32Array => Float32Array.from({ length }, () => random.normal());
  const feeds: Feeds = { query: draw(3 * N * C), keyValue: draw(3 * M * 2 * C), scale: draw(heads), weight: draw(C * C), bias: draw(C) };
  const context = await testContext();
  const [together, alone] = await Promise.all([3, 1].map(async (B) => {
    const { keys, projected } = operations.foldPrototypes({ keyValue: input('keyValue', [1, B, M, 2 * C]), learnScale: input('scale', [1, heads]), weight: input('weight', [1, C * C]), bias: input('bias', [1, C]), numHeads: heads });
    const z = operations.foldedAttention({ query: input('query', [B, N, C]), keys: operations.reshape(keys, [B, M, C]), projected: operations.reshape(projected, [B, M * heads + 1, C]), numHeads: heads });
    const first = { ...feeds, query: feeds['query']!.subarray(0, B * N * C), keyValue: feeds['keyValue']!.subarray(0, B * M * 2 * C) };
    return (await runOnce(context, { z }, first))['z']!.slice(0, N * C);
  }));
  expect(together).toEqual(alone);
});

test.each([0, 1e-13, 1e-6])('rows of size %s follow the clamped norm', async (size) => {
  // The gradient of the small rows alone is huge where the norm is clamped, so each is held apart.
  for (const [c, shape, small, wanted] of [
    [attentionCase, { B: 1, N: 7, M: 3, heads: 2, d: 5 }, 'query', [['query'], ['keys', 'projected']]],
    [foldCase, { D: 1, B: 1, M: 3, heads: 2, d: 5, padding: [0, 0, 0] }, 'keyValue', [['keyValue'], ['learnScale', 'weight', 'bias']]],
  ] as const) {
    for (const names of wanted) {
      const built = c.build(shape);
      const outputs = { ...built, ...gradientsOf(built, names) };
      const feeds = makeFeeds(c, shape, Object.values(outputs), new Random('small rows')) as Feeds;
      feeds[small]!.subarray(0, 10).forEach((x, i, row) => { row[i] = size * x; });
      await check(outputs, feeds, 1e-5);
    }
  }
});

test('a tile of tokens fits into the workgroup memory that every adapter has', () => {
  for (const family of ['swiftshader', 'lavapipe', 'gpu'] as const) {
    for (const [prototypes, heads] of [[1, 3], [6, 6], [6, 12], [6, 16], [23, 16], [32, 16]] as const) {
      const { tile, lanes, forward, weights } = foldedVariant({ batch: 1, tokens: 784, prototypes, heads, channels: 64 * heads }, { ...defaultTarget, family });
      expect(4 * tile * prototypes * heads, `${family}, ${prototypes} x ${heads}`).toBeLessThanOrEqual(defaultTarget.maxComputeWorkgroupStorageSize);
      for (const { across, rows } of [forward, weights]) expect(lanes / across * rows).toBe(tile);
    }
  }
});

describe('refuses', () => {
  const attend = (query: number[], keys: number[], projected: number[], numHeads: number) => () => operations.foldedAttention({ query: input('q', query), keys: input('k', keys), projected: input('u', projected), numHeads });
  test.each([
    ['another number of projected rows', attend([1, 4, 6], [1, 3, 6], [1, 6, 6], 2), /expected \[B, N, C\], \[B, M, C\], \[B, M heads \+ 1, C\]/],
    ['another batch', attend([2, 4, 6], [1, 3, 6], [1, 7, 6], 2), /query \[2, 4, 6\], keys \[1, 3, 6\]/],
    ['channels that do not divide', attend([1, 4, 5], [1, 3, 5], [1, 7, 5], 2), /5 channels do not divide into 2 heads/],
    ['more prototypes than folding pays for', attend([1, 4, 16], [1, 65, 16], [1, 521, 16], 8), /65 prototypes times 8 heads are more than 512/],
    ['a learnScale that is too short', () => operations.foldPrototypes({ keyValue: input('kv', [2, 1, 3, 12]), learnScale: input('s', [2, 1]), weight: input('w', [2, 36]), bias: input('b', [2, 6]), numHeads: 2 }), /learnScale has shape \[2, 1\], expected \[2, at least 2\]/],
    ['keys and values that do not halve into heads', () => operations.foldPrototypes({ keyValue: input('kv', [2, 1, 3, 10]), learnScale: input('s', [2, 2]), weight: input('w', [2, 25]), bias: input('b', [2, 5]), numHeads: 2 }), /keyValue has shape \[2, 1, 3, 10\]/],
  ])('%s', (_, build, message) => {
    expect(build).toThrow(UsageError);
    expect(build).toThrow(message);
  });
  test('a gradient of one output of foldPrototypes alone', () => {
    const { keys } = foldCase.build({ D: 1, B: 1, M: 2, heads: 1, d: 4, padding: [0, 0, 0] });
    expect(() => gradientsOf({ keys: keys! }, ['keyValue'])).toThrow(/both outputs must be used/);
  });
});
