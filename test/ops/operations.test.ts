/**
 * Every operation, on the adapter at hand: the kernels against the f64 reference on shapes that are no multiple of
 * any tile, and the gradients (as the graph computes them, on the GPU) against central finite differences of the
 * reference. A new operation gets a row in cases/; an operation without a row fails the last test.
 */
import { describe, expect, test } from 'vitest';
import { Random, seedFromText } from '../../src/data/random.ts';
import { compile } from '../../src/graph/plan.ts';
import { Executable } from '../../src/graph/executor.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { input, reachableNodes, sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import * as operations from '../../src/ops/index.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { testContext } from '../support/gpu.ts';
import { operationCases } from './cases/index.ts';
import type { OperationCase } from '../support/operation-case.ts';

function leaves(outputs: readonly Tensor[]): Tensor[] {
  return reachableNodes(outputs).filter((n) => n.kind === 'input').map((n) => n.outputs[0]!);
}

function makeFeeds(c: OperationCase, shape: unknown, outputs: readonly Tensor[], random: Random): Record<string, TensorData> {
  const given = c.feeds?.(shape, random) ?? {};
  const feeds: Record<string, TensorData> = {};
  for (const leaf of leaves(outputs)) {
    feeds[leaf.node.name] = given[leaf.node.name] ?? Float32Array.from({ length: sizeOf(leaf.shape) }, () => random.normal());
  }
  return feeds;
}

async function runOnGpu(outputs: Record<string, Tensor>, feeds: Record<string, TensorData>): Promise<Record<string, TensorData>> {
  const context = await testContext();
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs }));
  try {
    return await executable.run(feeds);
  } finally {
    executable.dispose();
  }
}

const rms = (x: ArrayLike<number>) => Math.sqrt(Array.from(x).reduce((s, v) => s + v * v, 0) / x.length);

function relativeL2(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    if (!Number.isFinite(actual[i]!)) return Infinity;
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / (norm || 1));
}

describe.each(operationCases.map((c) => [c.name, c] as const))('%s', (_, c) => {
  test('is tried on at least five shapes', () => expect(c.shapes.length).toBeGreaterThanOrEqual(5));

  test.each(c.shapes.map((s) => [JSON.stringify(s), s] as const))('forward %s', async (label, shape) => {
    const outputs = c.build(shape);
    const feeds = makeFeeds(c, shape, Object.values(outputs), new Random(seedFromText(`${c.name} ${label}`)));
    const actual = await runOnGpu(outputs, feeds);
    const expected = interpret(Object.values(outputs), new Map(Object.entries(feeds)));
    Object.keys(outputs).forEach((name, i) => {
      expect(relativeL2(actual[name]!, expected[i]!), `${c.name} ${label}: ${name}, relative L2`).toBeLessThanOrEqual(c.tolerance ?? 2e-6);
    });
  });

  if (!c.differentiate) return;
  test.each(c.shapes.map((s) => [JSON.stringify(s), s] as const))('gradient %s', async (label, shape) => {
    const built = c.build(shape);
    const sources = Object.entries(built).filter(([name, t]) => (c.gradientOutputs ? c.gradientOutputs.includes(name) : t.dtype === 'f32'));
    const seeds = sources.map(([name, tensor]) => ({ tensor, gradient: input(`gradient of ${name}`, tensor.shape) }));
    const wanted = leaves(sources.map(([, t]) => t)).filter((t) => c.differentiate!.includes(t.node.name));
    expect(wanted.map((t) => t.node.name).sort()).toEqual([...c.differentiate!].sort());
    const gradients = differentiate(seeds, wanted, operations.add);
    const outputs = Object.fromEntries(wanted.map((t, i) => [t.node.name, gradients[i]!]));
    const random = new Random(seedFromText(`${c.name} ${label}`));
    const feeds = makeFeeds(c, shape, [...seeds.map((s) => s.tensor), ...Object.values(outputs), ...seeds.map((s) => s.gradient)], random);
    const actual = await runOnGpu(outputs, Object.fromEntries(leaves(Object.values(outputs)).map((t) => [t.node.name, feeds[t.node.name]!])));

    const values = new Map<string, ArrayLike<number>>(Object.entries(feeds));
    const objective = (): number => {
      const results = interpret(seeds.map((s) => s.tensor), values);
      return results.reduce((sum, r, i) => sum + r.reduce((s, v, j) => s + v * feeds[seeds[i]!.gradient.node.name]![j]!, 0), 0);
    };
    for (const tensor of wanted) {
      const name = tensor.node.name;
      const point = Float64Array.from(feeds[name]!);
      values.set(name, point);
      const step = 1e-6 * Math.max(1e-3, rms(point));
      const picks = Array.from({ length: Math.min(12, point.length) }, () => random.integer(point.length));
      const expected = picks.map((i) => {
        const middle = point[i]!;
        point[i] = middle + step;
        const above = objective();
        point[i] = middle - step;
        const below = objective();
        point[i] = middle;
        return (above - below) / (2 * step);
      });
      const gradient = actual[name]!;
      expect(Array.from(gradient).every(Number.isFinite), `${name}: finite`).toBe(true);
      const size = Math.max(rms(gradient), rms(expected), 1e-30);
      const worst = Math.max(...picks.map((i, n) => Math.abs(gradient[i]! - expected[n]!) / size));
      expect(worst, `${c.name} ${label}: gradient of ${name}, largest error of ${picks.length} elements over rms`).toBeLessThanOrEqual(c.gradientTolerance ?? 1e-4);
    }
  });
});

test('every operation has a row in the table', () => {
  const isOperation = (x: unknown): x is Operation => typeof x === 'object' && x !== null && 'kernels' in x && 'reference' in x;
  const all = Object.values(operations).filter(isOperation).map((o) => o.name).sort();
  const covered = new Set(operationCases.flatMap((c) => c.operations.map((o) => o.name)));
  expect(all.filter((name) => !covered.has(name))).toEqual([]);
});
