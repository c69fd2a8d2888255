/**
 * What the table of operations can't show of attention: the kernels that real GPUs get (their variant is chosen by the
 * adapter's family, and the adapters of the tests are CPUs), rows of zero or nearly zero norm, logits that overflow
 * an exponential, and gradients that nobody wants.
 */
import { describe, expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, reachableNodes, sizeOf, type Tensor } from '../../src/graph/tensor.ts';
import * as operations from '../../src/ops/index.ts';
import { check, type Feeds } from '../support/check-graph.ts';
import { testContext } from '../support/gpu.ts';
import { attentionCases } from './cases/attention.ts';

/** The outputs, and the gradients of all f32 inputs given random gradients of the outputs. */
function withGradients(outputs: Record<string, Tensor>, seeded: readonly string[], wanted: readonly string[]): Record<string, Tensor> {
  const seeds = seeded.map((name) => ({ tensor: outputs[name]!, gradient: input(`gradient of ${name}`, outputs[name]!.shape) }));
  const leaves = reachableNodes(seeds.map((s) => s.tensor)).filter((n) => wanted.includes(n.name)).map((n) => n.outputs[0]!);
  const gradients = differentiate(seeds, leaves, operations.add);
  return { ...outputs, ...Object.fromEntries(leaves.map((t, i) => [`gradient by ${t.name}`, gradients[i]!])) };
}

function randomFeeds(outputs: Record<string, Tensor>, random: Random): Feeds {
  const leaves = reachableNodes(Object.values(outputs)).filter((n) => n.kind === 'input').map((n) => n.outputs[0]!);
  return Object.fromEntries(leaves.map((t) => [t.name, Float32Array.from({ length: sizeOf(t.shape) }, () => random.normal())]));
}

// Small heads and four shapes a row: GPUs' kernels are unrolled over channels, which takes CPU adapters' compilers long.
const cases = attentionCases.flatMap((c) => c.shapes.slice(0, 4)
  .map((shape) => ({ ...shape, d: Math.min(shape.d, 8) }))
  .map((shape) => [c.name, JSON.stringify(shape), c, shape] as const));

describe('the variants for GPUs', () => {
  test.each(cases)('%s %s', async (name, label, c, shape) => {
    const built = c.build(shape);
    const seeded = c.gradientOutputs ?? Object.keys(built);
    const outputs = c.differentiate ? withGradients(built, seeded, c.differentiate) : built;
    const random = new Random(`${name} ${label}`);
    await check(outputs, { ...randomFeeds(outputs, random), ...(c.feeds?.(shape, random) as Feeds | undefined) }, 1e-5, 'gpu');
  });
});

test('softmaxAttention of large logits stays finite and exact', async () => {
  const [q, k, v] = [input('q', [1, 9, 16]), input('k', [1, 33, 16]), input('v', [1, 33, 16])];
  const y = operations.softmaxAttention({ query: operations.channels(q), key: operations.channels(k), value: operations.channels(v), numHeads: 1 });
  const random = new Random('large logits');
  const feeds = randomFeeds({ y }, random);
  // Logits around 1e4, which in f32 are exact to 1e-3: whole numbers keep them exact.
  for (const name of ['q', 'k']) feeds[name] = feeds[name]!.map((x) => Math.round(64 * x));
  await check({ y, logSumExp: y.node.outputs[1]! }, feeds, 1e-3);
});

test('softmaxAttention computes only the gradients that are wanted', async () => {
  const [q, k, v] = [input('q', [2, 6, 32]), input('k', [2, 21, 32]), input('v', [2, 21, 32])];
  const y = operations.softmaxAttention({ query: operations.channels(q), key: operations.channels(k), value: operations.channels(v), numHeads: 2 });
  const context = await testContext();
  const kernelsFor = (wanted: string[]): number => compile({ target: context.target, outputs: withGradients({ y }, ['y'], wanted) }).dispatches.length;
  expect([kernelsFor(['v']), kernelsFor(['q']), kernelsFor(['q', 'k', 'v'])]).toEqual([2, 3, 4]);
  for (const wanted of [['v'], ['k'], ['q'], ['q', 'v']]) {
    const outputs = withGradients({ y }, ['y'], wanted);
    await check(outputs, randomFeeds(outputs, new Random('wanted')), 1e-5);
  }
});
