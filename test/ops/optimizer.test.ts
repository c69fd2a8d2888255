/** What the optimiser and pack do to memory, which the table of operations can't see. */
import { describe, expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, parameter } from '../../src/graph/tensor.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import * as ops from '../../src/ops/index.ts';
import { testContext } from '../support/gpu.ts';
import { expectClose } from '../support/golden.ts';

const names = ['values', 'firstMoment', 'secondMoment', 'maxSecondMoment'] as const;
type State = Record<(typeof names)[number], Float64Array>;

/** The formulas as golden/README.md's authors write them, in f64, for the elements of the segments alone. */
function plainStep(state: State, gradients: ArrayLike<number>, segments: readonly ops.Segment[], t: number, lr: number, o: typeof ops.stableAdamWDefaults): void {
  let squares = 0;
  for (const { offset, length } of segments) for (let i = offset; i < offset + length; i++) squares += gradients[i]! ** 2;
  const clip = Math.min(1, o.clipNorm / (Math.sqrt(squares) + 1e-6));
  for (const { offset, length } of segments) {
    const ratios: number[] = [];
    const steps: number[] = [];
    for (let i = offset; i < offset + length; i++) {
      const g = gradients[i]! * clip;
      state.values[i]! *= 1 - lr * o.weightDecay;
      state.firstMoment[i] = o.beta1 * state.firstMoment[i]! + (1 - o.beta1) * g;
      state.secondMoment[i] = o.beta2 * state.secondMoment[i]! + (1 - o.beta2) * g * g;
      state.maxSecondMoment[i] = Math.max(state.maxSecondMoment[i]!, state.secondMoment[i]!);
      const d = Math.sqrt(state.maxSecondMoment[i]!) / Math.sqrt(1 - o.beta2 ** t) + o.epsilon;
      ratios.push(g / d);
      steps.push(state.firstMoment[i]! / d);
    }
    const limit = Math.max(1, Math.sqrt(ratios.reduce((s, r) => s + r * r, 0) / length) / o.clipThreshold);
    steps.forEach((step, j) => (state.values[offset + j]! -= (lr / (1 - o.beta1 ** t) / limit) * step));
  }
}

async function prepare(lengths: number[], options: Partial<typeof ops.stableAdamWDefaults> = {}) {
  const context = await testContext();
  const { segments, total } = ops.flatSegments(lengths);
  const gradients = input('gradients', [total]);
  const norm = ops.gradientNorm([{ gradients, segments }]);
  const limits = ops.stableAdamW({
    values: parameter('values', [total]), firstMoment: parameter('firstMoment', [total]),
    secondMoment: parameter('secondMoment', [total]), maxSecondMoment: parameter('maxSecondMoment', [total]),
    gradients, norm, schedule: input('schedule', [4]),
  }, { segments, ...options });
  const memory = await DeviceMemory.allocate(context, 'state', names.map((name) => [name, 4 * total] as const));
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { norm, limits } }), memory.tensors);
  const dispose = () => {
    executable.dispose();
    memory.dispose();
  };
  return { segments, total, memory, executable, dispose };
}

/** Gradients with ordinary, large, tiny and zero elements, and NaN in the padding. */
function drawGradients(random: Random, segments: readonly ops.Segment[], total: number, scale: number): Float32Array {
  const gradients = new Float32Array(total).fill(NaN);
  for (const { offset, length } of segments) {
    for (let i = 0; i < length; i++) gradients[offset + i] = [1, 1, 1, 30, 1e-20, 0][i % 6]! * scale * random.normal();
  }
  return gradients;
}

describe.each([
  [[1], {}],
  [[77, 13, 30], {}],
  [[64, 5, 129, 2], { beta1: 0.8, beta2: 0.99, weightDecay: 0.1, clipNorm: 1, clipThreshold: 0.5, epsilon: 1e-8 }],
  [[4096, 4097, 9000], {}],
] as const)('stableAdamW on tensors of %j elements, %j', (lengths, options) => {
  test('equals a plain f64 loop over eight steps and leaves the padding alone', async () => {
    const constants = { ...ops.stableAdamWDefaults, ...options };
    const { segments, total, memory, executable, dispose } = await prepare([...lengths], options);
    const random = new Random(total);
    const start = Float32Array.from({ length: total }, () => random.normal());
    memory.write('values', start);
    const expected: State = {
      values: Float64Array.from(start), firstMoment: new Float64Array(total), secondMoment: new Float64Array(total), maxSecondMoment: new Float64Array(total),
    };
    for (let t = 1; t <= 8; t++) {
      const gradients = drawGradients(random, segments, total, [1, 100, 1e-3, 1, 1e-5, 0, 1, 1][t - 1]!);
      const lr = 1e-3 * (t - 1);
      const { limits } = await executable.run({ gradients, schedule: ops.stableAdamWSchedule(t, lr, constants) });
      plainStep(expected, gradients, segments, t, lr, constants);
      expect(Array.from(limits!).every((limit) => limit >= 1 && Number.isFinite(limit))).toBe(true);
    }
    const actual = await memory.read(names);
    for (const name of names) {
      for (const { offset, length } of segments) {
        const part = (x: Float32Array | Float64Array) => x.subarray(offset, offset + length);
        const wanted = part(expected[name]);
        // A first moment of few elements shows how gradients of both signs cancel in it.
        expectClose(part(actual.get(name)!), wanted, { relL2: name === 'values' ? 5e-7 : 1e-5, name: `${name} of ${length}` });
      }
    }
    const inSegment = new Set(segments.flatMap(({ offset, length }) => Array.from({ length }, (_, i) => offset + i)));
    for (let i = 0; i < total; i++) if (!inSegment.has(i)) expect(actual.get('values')![i]).toBe(start[i]);
    dispose();
  });
});

test('gradients of zeros on fresh moments move nothing but the weight decay', async () => {
  const { total, memory, executable, dispose } = await prepare([70, 3]);
  memory.write('values', new Float32Array(total).fill(2));
  await executable.run({ gradients: new Float32Array(total), schedule: ops.stableAdamWSchedule(1, 0.5) });
  const { values, firstMoment } = Object.fromEntries(await memory.read(names));
  expect(values![0]).toBeCloseTo(2 * (1 - 0.5 * 1e-4), 6);
  expect(firstMoment!.every((v) => v === 0)).toBe(true);
  dispose();
});

test('the same steps give the same bits', async () => {
  const results: Uint32Array[] = [];
  for (let repeat = 0; repeat < 2; repeat++) {
    const { segments, total, memory, executable, dispose } = await prepare([5000, 31]);
    const random = new Random(9);
    memory.write('values', Float32Array.from({ length: total }, () => random.normal()));
    for (let t = 1; t <= 3; t++) await executable.run({ gradients: drawGradients(random, segments, total, 1), schedule: ops.stableAdamWSchedule(t, 1e-2) });
    const read = await memory.read(['values']);
    results.push(new Uint32Array(read.get('values')!.buffer));
    dispose();
  }
  expect(results[0]).toEqual(results[1]);
});

test('gradientNorm joins several groups', async () => {
  const context = await testContext();
  const random = new Random(4);
  const groups = [[5000, 3], [65], [1, 1, 64]].map((lengths, g) => ({ ...ops.flatSegments(lengths), name: `g${g}` }));
  const norm = ops.gradientNorm(groups.map(({ name, total, segments }) => ({ gradients: input(name, [total]), segments })));
  const feeds = Object.fromEntries(groups.map(({ name, segments, total }) => [name, drawGradients(random, segments, total, 1)]));
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { norm } }));
  const actual = await executable.run(feeds);
  executable.dispose();
  let squares = 0;
  for (const { name, segments } of groups) for (const { offset, length } of segments) feeds[name]!.subarray(offset, offset + length).forEach((v) => (squares += v * v));
  expect(actual['norm']![0]! / Math.sqrt(squares)).toBeCloseTo(1, 6);
});

describe('pack', () => {
  test('takes computed tensors where they are made, and copies leaves and what lies elsewhere', async () => {
    const context = await testContext();
    const { segments, total } = ops.flatSegments([5, 70, 64, 3]);
    const offsets = segments.map((s) => s.offset);
    const x = [input('x0', [5]), input('x1', [7, 10]), input('x2', [64]), input('x3', [3])];
    const packed = ops.pack([ops.scale(x[0]!, 2), x[1]!, ops.reshape(ops.scale(x[2]!, 3), [8, 8]), x[3]!], offsets, total);
    const plan = compile({ target: context.target, outputs: { packed } });
    expect(plan.report.nodes.find((n) => n.op === 'pack')!.kernels).toBe(2);
    const executable = await Executable.prepare(context, plan);
    const random = new Random(5);
    const feeds = Object.fromEntries(x.map((t, i) => [t.name, Float32Array.from({ length: segments[i]!.length }, () => random.normal())]));
    const result = (await executable.run(feeds))['packed']!;
    executable.dispose();
    const factors = [2, 1, 3, 1];
    segments.forEach(({ offset, length }, i) => {
      expect(Array.from(result.subarray(offset, offset + length)), `tensor ${i}`).toEqual(Array.from(feeds[`x${i}`]!, (v) => Math.fround(factors[i]! * v)));
    });
  });

  test('needs no kernel where all tensors are computed', async () => {
    const { segments, total } = ops.flatSegments([5, 70]);
    const tensors = segments.map(({ length }, i) => ops.scale(input(`x${i}`, [length]), 2));
    const { report } = compile({ target: (await testContext()).target, outputs: { packed: ops.pack(tensors, segments.map((s) => s.offset), total) } });
    expect(report.nodes.map((n) => n.op)).toEqual(['scale', 'scale']);
  });

  test('refuses overlapping, misaligned and overlong layouts', () => {
    const x = [input('x', [70]), input('y', [3])];
    expect(() => ops.pack(x, [0, 64], 256)).toThrow(/after the end/);
    expect(() => ops.pack(x, [0, 72], 256)).toThrow(/multiple of 64/);
    expect(() => ops.pack(x, [0, 128], 130)).toThrow(/past the total/);
  });
});
