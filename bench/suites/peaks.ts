/**
 * What the adapter can do at best, measured in the same run as everything that is held against it: multiply-adds on values
 * that never leave the registers, and a copy through memory that is too large for any cache.
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

/** Seconds of a plan of one dispatch: by the GPU's own clock where it has one. */
export async function timeDispatch(engine: Engine, executable: Executable, inputs: Readonly<Record<string, TensorData>>): Promise<number> {
  if (engine.context.device.features.has('timestamp-query')) return (await executable.profile(inputs)).reduce((sum, d) => sum + d.seconds, 0);
  return timeUntilDone(engine, () => executable.run(inputs, { read: [] }));
}

export async function measurePeaks(engine: Engine, platform: Platform, { sampling, quick }: { sampling: Sampling; quick: boolean }): Promise<Peaks> {
  const { isSoftware } = engine.adapter;
  const clock = engine.context.device.features.has('timestamp-query') ? 'gpu' : 'wall';
  const best = { flops: 0, bandwidth: 0 };
  const report = (fields: Pick<Measurement, 'id' | 'title' | 'samples' | 'check'> & Partial<Measurement>) =>
    platform.report({ suite: 'peaks', group: 'Peaks', contender: 'ours', clock, ...fields });

  const invocations = isSoftware ? 16384 : 1 << 20;
  const inputs = { factors };
  for (const fused of [true, false]) {
    for (const vector of [false, true]) {
      for (const chains of quick ? [4] : [1, 2, 4, 8, 16]) {
        // A first, short run tells how many iterations make a sample long enough.
        const probe = { invocations, chains, vector, fused, iterations: 8 };
        const seconds = await withChains(engine, probe, (executable) => timeDispatch(engine, executable, inputs));
        const attributes = { ...probe, iterations: Math.min(100_000, Math.max(8, Math.ceil((8 * (isSoftware ? 0.06 : 0.02)) / Math.max(seconds, 1e-4)))) };
        await withChains(engine, attributes, async (executable) => {
          const samples = await collect(sampling, () => timeDispatch(engine, executable, inputs));
          const result = (await executable.run(inputs)).y!;
          const [expected] = multiplyAddChains.reference([Float64Array.from(factors)], { inputs: [], outputs: [], attributes });
          const failure = farthest(result, expected!, 1e-3);
          const { flops } = executable.plan.report;
          report({ id: `peaks/${fused ? 'fma' : 'mul-add'}/${vector ? 'vec4' : 'scalar'}/${chains}`, title: `multiply-add: ${executable.plan.dispatches[0]!.kernel.label}`, samples, flops, check: 'closed form', failure });
          if (!failure) best.flops = Math.max(best.flops, flops / median(samples));
        });
      }
    }
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

async function withChains<T>(engine: Engine, attributes: ChainAttributes, body: (executable: Executable) => Promise<T>): Promise<T> {
  const [y] = apply(multiplyAddChains, [input('factors', [4])], attributes);
  const executable = await engine.prepare({ y: y! });
  try {
    await executable.run({ factors }, { read: [] });
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
