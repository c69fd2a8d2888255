/**
 * Every operation, on the adapter at hand: the kernels against the f64 reference on shapes that are no multiple of
 * any tile, and the gradients (as the graph computes them, on the GPU) against central finite differences of the
 * reference. A new operation gets a row in cases/; an operation without a row fails the last test.
 */
import { describe, expect, test } from 'vitest';
import { Random, seedFromText } from '../../src/data/random.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { input } from '../../src/graph/tensor.ts';
import * as operations from '../../src/ops/index.ts';
import * as plusOperations from '../../src/ops/plus.ts';
import * as settingsOperations from '../../src/ops/settings.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { testContext } from '../support/gpu.ts';
import { operationCases } from './cases/index.ts';
import { forwardErrors, forwardTolerance, leavesOf, makeFeeds, runOnce } from '../support/operation-run.ts';

const rms = (x: ArrayLike<number>) => Math.sqrt(Array.from(x).reduce((s, v) => s + v * v, 0) / x.length);

describe.each(operationCases.map((c) => [c.name, c] as const))('%s', (_, c) => {
  test('is tried on at least five shapes', () => expect(c.shapes.length).toBeGreaterThanOrEqual(5));

  test.each(c.shapes.map((s) => [JSON.stringify(s), s] as const))('forward %s', async (label, shape) => {
    for (const [name, error] of Object.entries(await forwardErrors(await testContext(), c, shape))) {
      expect(error, `${c.name} ${label}: ${name}, relative L2`).toBeLessThanOrEqual(c.tolerance ?? forwardTolerance);
    }
  });

  if (!c.differentiate) return;
  test.each(c.shapes.map((s) => [JSON.stringify(s), s] as const))('gradient %s', async (label, shape) => {
    const built = c.build(shape);
    const sources = Object.entries(built).filter(([name, t]) => (c.gradientOutputs ? c.gradientOutputs.includes(name) : t.dtype === 'f32'));
    const seeds = sources.map(([name, tensor]) => ({ tensor, gradient: input(`gradient of ${name}`, tensor.shape) }));
    const wanted = leavesOf(sources.map(([, t]) => t)).filter((t) => c.differentiate!.includes(t.node.name));
    expect(wanted.map((t) => t.node.name).sort()).toEqual([...c.differentiate!].sort());
    const gradients = differentiate(seeds, wanted, operations.add);
    const outputs = Object.fromEntries(wanted.map((t, i) => [t.node.name, gradients[i]!]));
    const random = new Random(seedFromText(`${c.name} ${label}`));
    const feeds = makeFeeds(c, shape, [...seeds.map((s) => s.tensor), ...Object.values(outputs), ...seeds.map((s) => s.gradient)], random);
    const actual = await runOnce(await testContext(), outputs, Object.fromEntries(leavesOf(Object.values(outputs)).map((t) => [t.node.name, feeds[t.node.name]!])));

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
  const all = Object.values({ ...operations, ...plusOperations, ...settingsOperations }).filter(isOperation).map((o) => o.name).sort();
  const covered = new Set(operationCases.flatMap((c) => c.operations.map((o) => o.name)));
  expect(all.filter((name) => !covered.has(name))).toEqual([]);
});
