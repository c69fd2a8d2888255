// Autotuning on the adapter at hand: what it may pick gives the same bits, it measures each shape once, and a damaged or
// foreign table is no table.
import { afterEach, describe, expect, it, vi } from 'vitest';
import { AbortedError } from '../../src/errors.ts';
import { autotune, readTuning, writeTuning } from '../../src/graph/autotune.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor } from '../../src/graph/tensor.ts';
import { Engine } from '../../src/engine.ts';
import { add, gelu, gemmVariants, linear, matmul } from '../../src/ops/index.ts';
import { Random } from '../../src/data/random.ts';
import { ForcedTuning } from '../support/forced-tuning.ts';
import { testContext } from '../support/gpu.ts';
import { Executable } from '../../src/graph/executor.ts';
import type { GpuContext } from '../../src/gpu/context.ts';
import type { Target } from '../../src/gpu/target.ts';

const [rows, columns, depth] = [70, 72, 68];
const shapes: Record<string, readonly number[]> = { x: [rows, depth], w: [columns, depth], b: [columns], g: [rows, columns] };
/** The three layouts, with and without epilogues. */
const graph = () => {
  const [x, w, b, g] = ['x', 'w', 'b', 'g'].map((name) => input(name, shapes[name]!)) as [Tensor, Tensor, Tensor, Tensor];
  const y = linear(x, w, b);
  // Weight and bias gradients come from one kernel.
  const [ofWeight, ofBias] = differentiate([{ tensor: y, gradient: g }], [w, b], add);
  return {
    y, ofWeight: ofWeight!, ofBias: ofBias!, activated: gelu(y),
    dx: matmul(g, w, { shape: [rows, depth] }),
    dw: matmul(g, x, { transposeA: true, shape: [columns, depth] }),
    'dw, split': matmul(g, x, { transposeA: true, shape: [columns, depth], splits: 2 }),
  };
};
const random = new Random('autotune');
const feeds = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, Float32Array.from({ length: shape[0]! * (shape[1] ?? 1) }, () => random.normal())]));

const planFor = (target: Target) => compile({ target, outputs: graph() });
async function run(context: GpuContext, target: Target) {
  const executable = await Executable.prepare(context, planFor(target));
  try {
    return await executable.run(feeds);
  } finally {
    executable.dispose();
  }
}

afterEach(() => vi.restoreAllMocks());

describe('variants', () => {
  it('all give the same bits', async () => {
    const context = await testContext();
    const reference = await run(context, { ...context.target, tuning: new Map() });
    let tried = 0;
    for (const name of Object.keys(gemmVariants)) {
      const target = { ...context.target, tuning: new ForcedTuning(name) };
      if (!planFor(target).dispatches.some((d) => d.tuning?.variants().some((v) => v.name === name))) continue;
      tried++;
      expect(await run(context, target), name).toEqual(reference);
    }
    expect(tried).toBeGreaterThanOrEqual(2);
  });
});

describe('autotune', () => {
  it('measures every key once, and picks one of its variants', async () => {
    const context = await testContext();
    const plan = planFor(context.target);
    const keys = new Map(plan.dispatches.filter((d) => d.tuning).map((d) => [d.tuning!.key, d.tuning!.variants().map((v) => v.name)]));
    expect(keys.size).toBe(5);
    const before = context.allocatedBytes;
    const steps: [number, number][] = [];
    const found = await autotune(context, plan, { onProgress: (done, total) => steps.push([done, total]) });
    expect(steps).toEqual([[1, 5], [2, 5], [3, 5], [4, 5], [5, 5]]);
    expect([...found.keys()].sort()).toEqual([...keys.keys()].sort());
    for (const [key, name] of found) expect(keys.get(key)).toContain(name);
    expect(context.allocatedBytes).toBe(before);
    expect((await autotune(context, plan, { known: found })).size).toBe(0);
  });

  it('stops where it is told to', async () => {
    const context = await testContext();
    await expect(autotune(context, planFor(context.target), { signal: AbortSignal.abort() })).rejects.toThrow(AbortedError);
  });

  it('is kept by the engine, and found again by the next one on the same adapter', async () => {
    const { device } = await testContext();
    let kept: string | undefined;
    const tuning = { load: async () => kept, save: vi.fn(async (text: string) => { kept = text; }) };
    const engine = await Engine.create({ device, tuning });
    const plan = engine.context.target;
    expect(await engine.tune(planFor(plan))).toBe(5);
    expect(await engine.tune(planFor(plan))).toBe(0);
    expect(tuning.save).toHaveBeenCalledTimes(1);
    const again = await Engine.create({ device, tuning });
    expect(again.context.target.tuning).toEqual(engine.context.target.tuning);
    expect(await again.tune(planFor(again.context.target))).toBe(0);
  });
});

describe('a kept table', () => {
  it('comes back as it was, for its own adapter', () => {
    const table = new Map([['b', 'tiled'], ['a', 'register']]);
    expect(readTuning('A', writeTuning('A', table))).toEqual(table);
    expect(readTuning('B', writeTuning('A', table)).size).toBe(0);
  });

  it('is empty where it is damaged', () => {
    for (const text of [undefined, '', '{', 'null', '[]', '{"format":1,"adapter":"A"}', '{"format":2,"adapter":"A","variants":{"a":"b"}}']) expect(readTuning('A', text).size, text).toBe(0);
    expect(readTuning('A', '{"format":1,"adapter":"A","variants":{"a":"b","c":3}}')).toEqual(new Map([['a', 'b']]));
  });
});
