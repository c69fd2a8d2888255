// Plans at work on the adapter at hand: outputs are right wherever they lie, a run is one submit, runs don't disturb each
// other and repeat to the bit, and wrong inputs are refused by name.
import { describe, expect, it, vi } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile, type CompileOptions } from '../../src/graph/plan.ts';
import { constant, input, parameter, reachableNodes, sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { add, gelu, layerNorm, layerScale, linear, meanOf, pack, reshape, scale } from '../../src/ops/index.ts';
import { testContext } from '../support/gpu.ts';

const random = new Random('executor');
const normal = (length: number) => Float32Array.from({ length }, () => random.normal());

async function prepare(outputs: Record<string, Tensor>, options: Partial<CompileOptions> = {}): Promise<Executable> {
  const context = await testContext();
  return Executable.prepare(context, compile({ target: context.target, outputs, ...options }));
}

function feedsOf(outputs: Record<string, Tensor>): Record<string, Float32Array> {
  const leaves = reachableNodes(Object.values(outputs)).filter((n) => n.kind === 'input');
  return Object.fromEntries(leaves.map((n) => [n.name, normal(sizeOf(n.outputs[0]!.shape))]));
}

async function expectReference(outputs: Record<string, Tensor>, options: Partial<CompileOptions> = {}, tolerance = 1e-5): Promise<Record<string, TensorData>> {
  const executable = await prepare(outputs, options);
  const feeds = feedsOf(outputs);
  const actual = await executable.run(feeds);
  executable.dispose();
  const expected = interpret(Object.values(outputs), new Map(Object.entries(feeds)));
  Object.keys(outputs).forEach((name, i) => {
    expect(actual[name]).toHaveLength(expected[i]!.length);
    expected[i]!.forEach((v, j) => expect(Math.abs(actual[name]![j]! - v), `${name}[${j}]`).toBeLessThanOrEqual(tolerance * Math.max(1, Math.abs(v))));
  });
  return actual;
}

function block(rows = 9, width = 12): Record<string, Tensor> {
  const [x, gamma] = [input('x', [rows, width]), input('gamma', [width])];
  const hidden = gelu(linear(x, input('w1', [width * 2, width]), input('b1', [width * 2])));
  const y = add(x, layerScale(linear(hidden, input('w2', [width, width * 2]), input('b2', [width])), gamma));
  return { y, normed: layerNorm(y, gamma, input('beta', [width]), 1e-6) };
}

describe('results', () => {
  it('are the reference\'s, fused and not, and the same within 1e-6', async () => {
    const outputs = block();
    const [fused, plain] = [await prepare(outputs), await prepare(outputs, { fusion: false })];
    expect(fused.plan.report.kernels).toBeLessThan(plain.plan.report.kernels);
    const feeds = feedsOf(outputs);
    const [a, b] = [await fused.run(feeds), await plain.run(feeds)];
    for (const name of Object.keys(outputs)) a[name]!.forEach((v, i) => expect(Math.abs(v - b[name]![i]!)).toBeLessThanOrEqual(1e-6 * Math.max(1, Math.abs(v))));
    fused.dispose();
    plain.dispose();
    await expectReference(outputs);
  });

  it('may be leaves, other shapes of one memory, and parts of a concatenation', async () => {
    const x = input('x', [8, 8]);
    const [a, b] = [gelu(x), scale(x, 2)];
    const c = constant('c', [3], Float32Array.of(1, 2, 3));
    await expectReference({ x, c, a, flat: reshape(a, [64]), packed: pack([a, b, gelu(a), x], [0, 64, 128, 192], 256), b, again: gelu(b) });
  });

  it('may be computed past the number of workgroups that one dimension has', async () => {
    const context = await testContext();
    const target = { ...context.target, maxComputeWorkgroupsPerDimension: 7 };
    const x = input('x', [41, 63]); // 2583 elements: 41 workgroups of 64
    const plan = compile({ target, outputs: { y: add(gelu(x), x) } });
    expect(plan.dispatches.every((d) => d.workgroups.every((n) => n <= 7))).toBe(true);
    expect(plan.dispatches.some((d) => d.workgroups[1] > 1)).toBe(true);
    await expectReference({ y: add(gelu(x), x), n: layerNorm(input('rows', [45, 5]), input('gamma', [5]), input('beta', [5]), 1e-6) }, { target });
  });

  it('repeat to the bit, also in another executable of the same plan', async () => {
    const outputs = block(33, 20);
    const [one, two] = [await prepare(outputs), await prepare(outputs)];
    const feeds = feedsOf(outputs);
    const first = await one.run(feeds);
    await one.run(feedsOf(outputs));
    expect(await one.run(feeds)).toEqual(first);
    expect(await two.run(feeds)).toEqual(first);
    one.dispose();
    two.dispose();
  });

  it('of runs in flight are kept apart', async () => {
    const outputs = block();
    const executable = await prepare(outputs);
    const feeds = Array.from({ length: 5 }, () => feedsOf(outputs));
    const apart = [];
    for (const f of feeds) apart.push(await executable.run(f));
    expect(await Promise.all(feeds.map((f) => executable.run(f)))).toEqual(apart);
    expect(apart[0]).not.toEqual(apart[1]);
    executable.dispose();
  });

  it('can be read in part, or not at all', async () => {
    const outputs = block();
    const executable = await prepare(outputs);
    const feeds = feedsOf(outputs);
    const all = await executable.run(feeds);
    expect(await executable.run(feeds, { read: ['normed'] })).toEqual({ normed: all['normed'] });
    expect(await executable.run(feeds, { read: [] })).toEqual({});
    await expect(executable.run(feeds, { read: ['other'] })).rejects.toThrow(/no output other; it has y, normed/);
    executable.dispose();
  });

  it('are typed as the tensors are', async () => {
    const executable = await prepare({ u: reshape(input('u', [4], 'u32'), [2, 2]), i: input('i', [3], 'i32') });
    const feeds = { u: Uint32Array.of(0, 1, 2 ** 31, 2 ** 32 - 1), i: Int32Array.of(-1, 0, 2 ** 31 - 1) };
    expect(await executable.run(feeds)).toEqual(feeds);
    executable.dispose();
  });
});

it('a run is one submit', async () => {
  const { device } = await testContext();
  const outputs = block();
  const executable = await prepare(outputs);
  const feeds = feedsOf(outputs);
  const submit = vi.spyOn(device.queue, 'submit');
  await executable.run(feeds);
  expect(submit).toHaveBeenCalledTimes(1);
  expect(submit.mock.calls[0]![0]).toHaveLength(1);
  expect(executable.submits).toBe(1);
  submit.mockRestore();
  executable.dispose();
});

it('memory read by a second plan is the parameter of both', async () => {
  const context = await testContext();
  const memory = await DeviceMemory.allocate(context, 'shared', [['p', 20]]);
  memory.write('p', Float32Array.of(1, 2, 3, 4, 5));
  const plan = compile({ target: context.target, outputs: { y: add(input('x', [5]), parameter('p', [5])) } });
  const executable = await Executable.prepare(context, plan, memory.tensors);
  const x = Float32Array.of(10, 20, 30, 40, 50);
  expect([...(await executable.run({ x }))['y']!]).toEqual([11, 22, 33, 44, 55]);
  memory.write('p', new Float32Array(5));
  expect([...(await executable.run({ x }))['y']!]).toEqual([...x]);
  executable.dispose();
  memory.dispose();
});

describe('refused are', () => {
  it('missing, unknown, misshaped and mistyped inputs, before anything is submitted', async () => {
    const executable = await prepare({ y: add(input('x', [2, 3]), input('z', [2, 3])) });
    const z = new Float32Array(6);
    await expect(executable.run({ z })).rejects.toThrow(/Input x of shape \[2, 3\] was not given/);
    await expect(executable.run({ x: z, z, extra: z })).rejects.toThrow(/no input extra; it has x, z/);
    await expect(executable.run({ x: new Float32Array(5), z })).rejects.toThrow(/needs 6 elements, got 5/);
    await expect(executable.run({ x: new Uint32Array(6), z })).rejects.toThrow(/is f32 and needs a Float32Array, got a Uint32Array/);
    await expect(executable.run({ z })).rejects.toThrow(UsageError);
    expect(executable.submits).toBe(0);
    executable.dispose();
  });

  it('plans whose parameters are not bound, or too small', async () => {
    const context = await testContext();
    const plan = compile({ target: context.target, outputs: { y: gelu(parameter('p', [8])) } });
    const before = context.allocatedBytes;
    await expect(Executable.prepare(context, plan)).rejects.toThrow(/needs the parameter p of shape \[8\]; none was given/);
    const memory = await DeviceMemory.allocate(context, 'small', [['p', 16]]);
    await expect(Executable.prepare(context, plan, memory.tensors)).rejects.toThrow(/needs 32 bytes, 16 are bound/);
    memory.dispose();
    expect(context.allocatedBytes).toBe(before);
  });
});

it('means of more tensors than bindings agree with the reference', async () => {
  await expectReference({ y: meanOf(Array.from({ length: 17 }, (_, i) => input(`x${i}`, [3, 5]))) });
});
