// The search in the kinds of variants that tuning may choose, those for GPUs among them, gives the same bits.
import { describe, expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { input } from '../../src/graph/tensor.ts';
import { nearestNeighbour } from '../../src/ops/nearest-neighbour.ts';
import { expectClose } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

describe('the variants', () => {
  test.each([{ rows: 70, columns: 145, depth: 20, names: ['tiled', 'tiledBlocks', 'register'] }, { rows: 3, columns: 131, depth: 7, names: ['tiled', 'small'] }])('%o', async ({ rows, columns, depth, names }) => {
    const context = await testContext();
    const random = new Random(`variants ${rows}`);
    const draw = (count: number) => Float32Array.from({ length: count }, () => random.normal() / Math.sqrt(depth));
    const feeds = { x: draw(rows * depth), memory: draw(columns * depth) };
    const distance = nearestNeighbour(input('x', [rows, depth]), [input('memory', [columns, depth])]);
    const [expected] = interpret([distance], new Map(Object.entries(feeds)));
    let bits: unknown;
    const tried: string[] = [];
    for (const family of ['gpu', context.target.family] as const) {
      const planFor = (tuning: Map<string, string>) => compile({ target: { ...context.target, family, tuning }, outputs: { distance } });
      const { tuning } = planFor(new Map()).dispatches[0]!;
      for (const { name } of tuning!.variants()) {
        if (!names.includes(name) || tried.includes(name)) continue;
        const executable = await Executable.prepare(context, planFor(new Map([[tuning!.key, name]])));
        const result = (await executable.run(feeds).finally(() => executable.dispose()))['distance']!;
        expectClose(result, expected!, { relL2: 1e-5, name: `${family} ${name}` });
        // Products are added up in one order, and a maximum rounds nothing.
        expect(result, name).toEqual(bits ??= result);
        tried.push(name);
      }
    }
    expect(tried.sort()).toEqual(names.sort());
  });
});
