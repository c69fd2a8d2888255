/**
 * What the adapter can do at best, measured in the same run as everything that is held against it: multiply-adds on values
 * that never leave the registers, loads of values that lie in the nearest cache, and a copy through memory that is too large
 * for any. The second tells what keeps matrix products from the first: each value has to be loaded before it is multiplied.
 *
 * Each invocation runs several independent chains x = a x + b, so that one multiply-add need not wait for the one before;
 * a and b come from a buffer and the chains' end is written out and checked, so no compiler can leave the work out.
 */
import { linearGrid } from '../../shaders/common.wgsl.ts';
import type { Engine } from '../../src/engine.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import { kernel, wgsl } from '../../src/gpu/wgsl.ts';
import type { Executable } from '../../src/graph/executor.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { apply, input, parameter, type TensorData } from '../../src/graph/tensor.ts';
import { collect, median, type Measurement, type Sampling } from '../measurement.ts';
import { timeUntilDone, type Platform } from './bench.ts';

/** Operations and bytes a second: the best of everything tried. */
export interface Peaks {
  readonly flops: number;
  readonly bandwidth: number;
  /** Bytes that invocations load from the nearest cache into registers. */
  readonly loads: number;
}

interface ChainAttributes {
  readonly invocations: number;
  readonly chains: number;
  readonly vector: boolean;
  readonly fused: boolean;
  readonly iterations: number;
}

/** Steps in the body of the loop, so that counting costs next to nothing. */
const unrolled = 8;
const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const start = (invocation: number, chain: number, lane: number) => (invocation % 64) * 0.01 + chain * 0.1 + lane * 0.001;
const factors = Float32Array.of(0.999, 0.0015, 0, 0);

/** From the factors [4] to the sum of each invocation's chains, [invocations]. */
export const multiplyAddChains: Operation<ChainAttributes> = {
  name: 'multiplyAddChains',
  outputs: (_, { invocations }) => [{ shape: [invocations], dtype: 'f32' }],
  kernels({ attributes, target, read, write }) {
    const { invocations, chains, vector, fused, iterations } = attributes;
    const grid = linearGrid(invocations, target);
    const type = vector ? 'vec4f' : 'f32';
    const step = (c: number) => (fused ? `x${c} = fma(x${c}, a, b);` : `x${c} = x${c} * a + b;`);
    const label = `${fused ? 'fma' : 'mul + add'} ${vector ? 'vec4' : 'scalar'}, ${chains} ${chains === 1 ? 'chain' : 'chains'}`;
    const total = range(chains).map((c) => (vector ? `dot(x${c}, vec4f(1.0))` : `x${c}`)).join(' + ');
    const text = wgsl`
@group(0) @binding(0) var<storage, read> factors: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let a = ${type}(factors[0]);
  let b = ${type}(factors[1]);
  let first = f32(i % 64u) * 0.01;
  ${range(chains).map((c) => `var x${c} = ${vector ? `vec4f(first + ${(c * 0.1).toFixed(1)}) + vec4f(0.0, 0.001, 0.002, 0.003)` : `first + ${(c * 0.1).toFixed(1)}`};`).join('\n  ')}
  for (var n = 0u; n < ${iterations}u; n++) {
    ${range(unrolled).map(() => range(chains).map(step).join(' ')).join('\n    ')}
  }
  y[i] = ${total};
}
`;
    const width = vector ? 4 : 1;
    return [{
      kernel: kernel('peaks.ts', label, text), workgroups: grid.workgroups, bindings: [read(0), write(0)],
      flops: 2 * width * chains * unrolled * iterations * invocations, bytes: 4 * invocations,
    }];
  },
  reference([values], { attributes: { invocations, chains, vector, iterations } }) {
    const [a, b] = [values![0]!, values![1]!];
    const decay = a ** (unrolled * iterations);
    const end = (x: number) => decay * x + (b * (1 - decay)) / (1 - a);
    return [Float64Array.from({ length: invocations }, (_, i) =>
      range(chains).reduce((sum, c) => sum + range(vector ? 4 : 1).reduce((part, lane) => part + end(start(i, c, lane)), 0), 0))];
  },
};

interface CopyAttributes {
  readonly vectors: number;
  /** Consecutive vectors that one invocation copies. */
  readonly each: number;
}

/** y = x, in vectors of four. */
export const copy: Operation<CopyAttributes> = {
  name: 'copy',
  outputs: (_, { vectors }) => [{ shape: [vectors * 4], dtype: 'f32' }],
  kernels({ attributes: { vectors, each }, target, read, write }) {
    const grid = linearGrid(vectors / each, target);
    const text = wgsl`
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  ${range(each).map((n) => `y[i * ${each}u + ${n}u] = x[i * ${each}u + ${n}u];`).join('\n  ')}
}
`;
    return [{ kernel: kernel('peaks.ts', `copy, ${each} vec4 each`, text), workgroups: grid.workgroups, bindings: [read(0), write(0)], flops: 0, bytes: 32 * vectors }];
  },
  reference: ([x]) => [Float64Array.from(x!)],
};

interface LoadAttributes {
  readonly invocations: number;
  readonly vector: boolean;
  readonly iterations: number;
}

/** Values of the buffer that the loads go round. */
const cachedValues = 1024;

/** From x [1024] to the sum of `8 iterations` of its elements for each invocation, from its own number on. */
export const cachedLoads: Operation<LoadAttributes> = {
  name: 'cachedLoads',
  outputs: (_, { invocations }) => [{ shape: [invocations], dtype: 'f32' }],
  kernels({ attributes: { invocations, vector, iterations }, target, read, write }) {
    const grid = linearGrid(invocations, target);
    const [type, width] = vector ? ['vec4f', 4] : ['f32', 1];
    const text = wgsl`
@group(0) @binding(0) var<storage, read> x: array<${type}, ${cachedValues / width}>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  ${range(unrolled).map((c) => `var sum${c} = ${type}();`).join(' ')}
  for (var n = 0u; n < ${iterations}u; n++) {
    let at = i + n * ${unrolled}u;
    ${range(unrolled).map((c) => `sum${c} += x[(at + ${c}u) % ${cachedValues / width}u];`).join(' ')}
  }
  let sum = ${range(unrolled).map((c) => `sum${c}`).join(' + ')};
  y[i] = ${vector ? 'dot(sum, vec4f(1.0))' : 'sum'};
}
`;
    return [{
      kernel: kernel('peaks.ts', `load, ${vector ? 'vec4' : 'scalar'}`, text), workgroups: grid.workgroups, bindings: [read(0), write(0)],
      flops: 0, bytes: 4 * width * unrolled * iterations * invocations,
    }];
  },
  reference([x], { attributes: { invocations, vector, iterations } }) {
    const width = vector ? 4 : 1;
    const elements = cachedValues / width;
    // before[n]: the sum of the first n elements, over two rounds of the buffer.
    const before = new Float64Array(2 * elements + 1);
    for (let n = 0; n < 2 * elements; n++) {
      const at = (n % elements) * width;
      before[n + 1] = before[n]! + range(width).reduce((sum, c) => sum + x![at + c]!, 0);
    }
    const loads = unrolled * iterations;
    return [Float64Array.from({ length: invocations }, (_, i) => {
      const first = i % elements;
      return Math.floor(loads / elements) * before[elements]! + before[first + (loads % elements)]! - before[first]!;
    })];
  },
};

/** Seconds of a plan of one dispatch: by the GPU's own clock where it has one. */
export async function timeDispatch(engine: Engine, executable: Executable, inputs: Readonly<Record<string, TensorData>>): Promise<number> {
  if (engine.context.device.features.has('timestamp-query')) return (await executable.profile(inputs)).reduce((sum, d) => sum + d.seconds, 0);
  return timeUntilDone(engine, () => executable.run(inputs, { read: [] }));
}

export async function measurePeaks(engine: Engine, platform: Platform, { sampling, quick }: { sampling: Sampling; quick: boolean }): Promise<Peaks> {
  const { isSoftware } = engine.adapter;
  const clock = engine.context.device.features.has('timestamp-query') ? 'gpu' : 'wall';
  const best = { flops: 0, bandwidth: 0, loads: 0 };
  const report = (fields: Pick<Measurement, 'id' | 'title' | 'samples' | 'check'> & Partial<Measurement>) =>
    platform.report({ suite: 'peaks', group: 'Peaks', contender: 'ours', clock, ...fields });

  const invocations = isSoftware ? 16384 : 1 << 20;
  // A first, short run tells how many iterations make a sample long enough.
  const enough = (iterations: number, seconds: number): number =>
    Math.min(100_000, Math.max(iterations, Math.ceil((iterations * (isSoftware ? 0.06 : 0.02)) / Math.max(seconds, 1e-4))));
  const time = async <A extends { iterations: number }>(operation: Operation<A>, probe: A, input: readonly [name: string, values: Float32Array<ArrayBuffer>], id: string, title: string): Promise<void> => {
    const inputs = { [input[0]]: input[1] };
    const seconds = await withOne(engine, operation, probe, input, (executable) => timeDispatch(engine, executable, inputs));
    const attributes = { ...probe, iterations: enough(probe.iterations, seconds) };
    await withOne(engine, operation, attributes, input, async (executable) => {
      const samples = await collect(sampling, () => timeDispatch(engine, executable, inputs));
      const result = (await executable.run(inputs)).y!;
      const [expected] = operation.reference([Float64Array.from(input[1])], { inputs: [], outputs: [], attributes });
      const failure = farthest(result, expected!, 1e-3);
      const { flops, bytes } = executable.plan.report;
      report({ id, title: `${title}${executable.plan.dispatches[0]!.kernel.label}`, samples, ...(flops > 0 ? { flops } : { bytes }), check: flops > 0 ? 'closed form' : 'f64 sum', failure });
      if (failure) return;
      if (flops > 0) best.flops = Math.max(best.flops, flops / median(samples));
      else best.loads = Math.max(best.loads, bytes / median(samples));
    });
  };
  for (const fused of [true, false]) {
    for (const vector of [false, true]) {
      for (const chains of quick ? [4] : [1, 2, 4, 8, 16]) {
        await time(multiplyAddChains, { invocations, chains, vector, fused, iterations: 8 }, ['factors', factors], `peaks/${fused ? 'fma' : 'mul-add'}/${vector ? 'vec4' : 'scalar'}/${chains}`, 'multiply-add: ');
      }
    }
  }
  const cached = Float32Array.from({ length: cachedValues }, (_, i) => (i % 61) / 61);
  for (const vector of [false, true]) {
    await time(cachedLoads, { invocations, vector, iterations: 8 }, ['x', cached], `peaks/load/${vector ? 'vec4' : 'scalar'}`, 'from the nearest cache: ');
  }

  const vectors = (isSoftware ? 32 : 128) * 65536;
  const values = Float32Array.from({ length: vectors * 4 }, (_, i) => i % 8191);
  const memory = await DeviceMemory.allocate(engine.context, 'values to copy', [['x', values.byteLength]]);
  memory.write('x', values);
  for (const each of [1, 4]) {
    const [y] = apply(copy, [parameter('x', [vectors * 4])], { vectors, each });
    const executable = await engine.prepare({ y: y! }, memory.tensors);
    try {
      await executable.run({}, { read: [] });
      const samples = await collect(sampling, () => timeDispatch(engine, executable, {}));
      const result = (await executable.run()).y!;
      const failure = result.every((value, i) => value === values[i]) ? undefined : 'The copy differs from what was copied.';
      const { bytes } = executable.plan.report;
      report({ id: `peaks/copy/${each}`, title: `copy, ${each} vec4 an invocation`, samples, bytes, check: 'equality', failure });
      if (!failure) best.bandwidth = Math.max(best.bandwidth, bytes / median(samples));
    } finally {
      executable.dispose();
    }
  }
  memory.dispose();
  return best;
}

/** A plan of one operation from one input to `y`, run once to warm up. */
async function withOne<A, T>(engine: Engine, operation: Operation<A>, attributes: A, [name, values]: readonly [name: string, values: Float32Array<ArrayBuffer>], body: (executable: Executable) => Promise<T>): Promise<T> {
  const [y] = apply(operation, [input(name, [values.length])], attributes);
  const executable = await engine.prepare({ y: y! });
  try {
    await executable.run({ [name]: values }, { read: [] });
    return await body(executable);
  } finally {
    executable.dispose();
  }
}

/** What is wrong with a result, or undefined: the largest difference, relative to the largest value expected. */
export function farthest(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): string | undefined {
  if (actual.length !== expected.length) return `The result has ${actual.length} values, expected ${expected.length}.`;
  let [worst, at, size] = [0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    size = Math.max(size, Math.abs(expected[i]!));
    const off = Math.abs(actual[i]! - expected[i]!);
    if (!(off <= worst)) [worst, at] = [Number.isNaN(off) ? Infinity : off, i];
  }
  if (worst <= tolerance * size) return undefined;
  return `Wrong result: value ${at} is ${actual[at]}, expected ${expected[at]!.toPrecision(7)}; off by ${(worst / size).toExponential(1)} of the largest value, allowed are ${tolerance.toExponential(0)}.`;
}
