import { expect, test } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input } from '../../src/graph/tensor.ts';
import { topMean } from '../../src/ops/index.ts';
import { testContext } from '../support/gpu.ts';

async function topMeanOf(x: Float32Array, rows: number, fraction: number): Promise<number[]> {
  const context = await testContext();
  const y = topMean(input('x', [rows, x.length / rows]), { fraction });
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { y } }));
  const result = await executable.run({ x });
  executable.dispose();
  return Array.from(result.y!);
}

test('NaN of either sign makes its row NaN, and no other', async () => {
  const x = new Float32Array(3 * 300).fill(0.5);
  const bits = new Uint32Array(x.buffer);
  bits[7] = 0x7fc00000;
  bits[300 + 299] = 0xffc00000;
  expect(await topMeanOf(x, 3, 0.01)).toEqual([NaN, NaN, 0.5]);
});

test('zeros of both signs, infinities and subnormal neighbours keep their order', async () => {
  expect(await topMeanOf(Float32Array.of(-0, 0, -1, -3), 1, 0.75)).toEqual([Math.fround(-1 / 3)]);
  expect(await topMeanOf(Float32Array.of(1, Infinity, -Infinity, 2), 1, 0.5)).toEqual([Infinity]);
  expect(await topMeanOf(Float32Array.of(-Infinity, -2, -4), 1, 0.7)).toEqual([-3]);
});

test('the count is floor(fraction P), at least one', async () => {
  const ramp = Float32Array.from({ length: 199 }, (_, i) => i);
  expect(await topMeanOf(ramp, 1, 0.01)).toEqual([198]);
  expect(await topMeanOf(ramp, 1, 0.0001)).toEqual([198]);
  expect(await topMeanOf(ramp, 1, 0.02)).toEqual([197]);
  expect(() => topMean(input('x', [1, 10]), { fraction: 0 })).toThrow(UsageError);
  expect(() => topMean(input('x', [10]))).toThrow(/expected \[B, P\]/);
});
