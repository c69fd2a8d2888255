/** What the table of operations can't show of the losses: degenerate features, ties, slices, and how often big tensors are read. */
import { expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { defaultTarget } from '../../src/gpu/target.ts';
import * as ops from '../../src/ops/index.ts';
import { testContext } from '../support/gpu.ts';
import { expectClose } from '../support/golden.ts';

async function run(outputs: Record<string, Tensor>, feeds: Record<string, TensorData>): Promise<Record<string, TensorData>> {
  const context = await testContext();
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs }));
  try {
    return await executable.run(feeds);
  } finally {
    executable.dispose();
  }
}

const normal = (random: Random, count: number) => Float32Array.from({ length: count }, () => random.normal());

test('features of zeros and features that agree give finite losses, factors and gradients', async () => {
  const shape = [2, 5, 12];
  const en = normal(new Random(1), 120);
  const de = en.slice();
  en.fill(0, 0, 12); // a zero token in en
  de.fill(0, 12, 24); // and another in de
  const build = () => {
    const [e, d] = [input('en', shape), input('de', shape)];
    const loss = ops.miningCosineLoss([{ en: e, de: d }]);
    const [gradient] = differentiate([{ tensor: loss, gradient: ops.broadcast(ops.scale(loss, 0), [1]) }], [d], ops.add);
    return { loss, map: ops.cosineMap(e, d), factor: ops.hardMiningFactor(e, d), gradient: gradient! };
  };
  for (const feeds of [{ en, de }, { en, de: en }, { en: new Float32Array(120), de: new Float32Array(120) }]) {
    for (const [name, values] of Object.entries(await run(build(), feeds))) {
      expect(Array.from(values).every(Number.isFinite), name).toBe(true);
    }
  }
  const { map } = await run(build(), { en, de });
  expect([map![0], map![1]]).toEqual([1, 1]);
});

test('of two nearest prototypes the first counts, and it alone gets the gradient', async () => {
  const random = new Random(2);
  const x = input('x', [1, 3, 8]);
  const P = input('P', [1, 4, 8]);
  const { distance, index } = ops.coherence(x, P);
  const [gradient] = differentiate([{ tensor: distance, gradient: input('g', distance.shape) }], [P], ops.add);
  const token = normal(random, 8);
  const far = token.map((v) => -v);
  const result = await run({ index, gradient: gradient! }, {
    x: Float32Array.of(...token, ...token, ...token), P: Float32Array.of(...far, ...token, ...token, ...far).map((v, i) => v + (i % 8 === 0 ? 0.5 : 0)),
    g: Float32Array.of(1, 1, 1),
  });
  expect(Array.from(result['index']!)).toEqual([1, 1, 1]);
  const rows = [0, 1, 2, 3].map((m) => result['gradient']!.slice(8 * m, 8 * m + 8).some((v) => v !== 0));
  expect(rows).toEqual([false, true, false, false]);
});

test('a batch in slices gives the loss and the gradients of the whole batch', async () => {
  const random = new Random(3);
  const [n, c, sizes] = [7, 20, [2, 3, 1]];
  const whole = { en: normal(random, 6 * n * c), de: normal(random, 6 * n * c) };
  const slices = sizes.map((b, i) => ({ en: input(`en${i}`, [b, n, c]), de: input(`de${i}`, [b, n, c]) }));
  const sliced = ops.miningCosineLoss(slices);
  const seed = input('seed', [1]);
  const parts = differentiate([{ tensor: sliced, gradient: seed }], slices.map((s) => s.de), ops.add);
  const all = { en: input('en', [6, n, c]), de: input('de', [6, n, c]) };
  const loss = ops.miningCosineLoss([all]);
  const [gradient] = differentiate([{ tensor: loss, gradient: seed }], [all.de], ops.add);
  const feeds: Record<string, TensorData> = { ...whole, seed: Float32Array.of(1) };
  let at = 0;
  sizes.forEach((b, i) => {
    const end = at + b * n * c;
    Object.assign(feeds, { [`en${i}`]: whole.en.slice(at, end), [`de${i}`]: whole.de.slice(at, end) });
    at = end;
  });
  const result = await run({ loss, sliced, gradient: gradient!, part0: parts[0]!, part1: parts[1]!, part2: parts[2]! }, feeds);
  expectClose(result['sliced']!, result['loss']!, { relL2: 1e-6, name: 'loss' });
  const joined = Float32Array.of(...result['part0']!, ...result['part1']!, ...result['part2']!);
  expectClose(joined, result['gradient']!, { relL2: 1e-6, name: 'gradient' });
});

test('en and de are read once forward and once backward', () => {
  const shape = [4, 100, 64];
  const [en, de] = [input('en', shape), input('de', shape)];
  const loss = ops.miningCosineLoss([{ en, de }]);
  const [gradient] = differentiate([{ tensor: loss, gradient: input('seed', [1]) }], [de], ops.add);
  const { dispatches } = compile({ target: defaultTarget, outputs: { loss, gradient: gradient! } });
  const big = dispatches.filter((d) => d.bindings.some((b) => b.bytes === 4 * 4 * 100 * 64));
  expect(big.map((d) => d.node)).toEqual(['tokenCosine', 'tokenCosineGradient']);
});

test('a power that is no positive integer is refused', () => {
  expect(() => ops.powerOfRatio(input('m', [2, 3]), input('mean', [1]), 0.5)).toThrow(/positive integer, got 0.5/);
});
