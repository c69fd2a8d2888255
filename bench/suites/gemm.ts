/**
 * Matrix products: random values, the answer of a sample of elements in f64, and this engine as one that takes part in a
 * race. The two variants of A differ in their sign, so an old result is a wrong one.
 */
import { Random } from '../../src/data/random.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import { Executable } from '../../src/graph/executor.ts';
import { parameter, type Tensor } from '../../src/graph/tensor.ts';
import { matmul } from '../../src/ops/index.ts';
import type { GemmProblem, Racer, Variant } from '../peers/peer.ts';
import { compileFor, idle, readOutputs, type Runner } from './bench.ts';

export interface Layout {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

export const layouts: Readonly<Record<'NN' | 'NT' | 'TN', Layout>> = {
  NN: { transposeA: false, transposeB: false },
  NT: { transposeA: false, transposeB: true },
  TN: { transposeA: true, transposeB: false },
};

/** f32 sums of `depth` products of values within 1 differ from f64's by far less. */
export const gemmTolerance = 2e-5;

export function randomValues(seed: string, length: number, scale = 1): Float32Array<ArrayBuffer> {
  const random = new Random(seed);
  return Float32Array.from({ length }, () => random.uniform(-scale, scale));
}

export function gemmProblem(rows: number, columns: number, depth: number): GemmProblem {
  const a = randomValues(`A ${rows}x${depth}`, rows * depth);
  return { rows, columns, depth, a: [a, a.map((value) => -value)], b: randomValues(`B ${depth}x${columns}`, depth * columns) };
}

export interface GemmSample {
  readonly at: readonly number[];
  readonly values: Float64Array;
}

/** The right values of elements spread over all of C, corners included; of variant 0. */
export function sampleProduct({ rows, columns, depth, a: [a], b }: GemmProblem, { transposeA, transposeB }: Layout = layouts.NN, count = 4096): GemmSample {
  const random = new Random('sampled elements');
  const at = [0, columns - 1, (rows - 1) * columns, rows * columns - 1, ...Array.from({ length: count }, () => random.integer(rows * columns))];
  const values = Float64Array.from(at, (index) => {
    const [i, j] = [Math.floor(index / columns), index % columns];
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += a![transposeA ? k * rows + i : i * depth + k]! * b[transposeB ? j * depth + k : k * columns + j]!;
    return sum;
  });
  return { at, values };
}

/** What is wrong with C, or undefined. */
export function judgeProduct(c: ArrayLike<number>, { rows, columns, depth }: GemmProblem, { at, values }: GemmSample, variant: Variant): string | undefined {
  if (c.length !== rows * columns) return `The product has ${c.length} values, expected ${rows * columns}.`;
  const sign = variant === 0 ? 1 : -1;
  const allowed = gemmTolerance * Math.sqrt(depth);
  const wrong = at.findIndex((index, n) => !(Math.abs(c[index]! - sign * values[n]!) <= allowed));
  if (wrong < 0) return undefined;
  const share = at.filter((index, n) => !(Math.abs(c[index]! - sign * values[n]!) <= allowed)).length / at.length;
  return `Wrong result: element ${at[wrong]} is ${c[at[wrong]!]}, expected ${(sign * values[wrong]!).toPrecision(6)}; ${Math.ceil(share * 100)} % of the sampled elements are off.`;
}

export interface GemmRacer extends Racer {
  readonly executable: Executable;
  /** Brings a variant of A to the GPU. */
  load(variant: Variant): void;
}

/** A product in a plan of its own whose operands stay on the GPU. */
export async function gemmRacer(
  runner: Runner, problem: GemmProblem, layout: Layout = layouts.NN,
  build: (a: Tensor, b: Tensor) => Tensor = (a, b) => matmul(a, b, { shape: [problem.rows, problem.columns], ...layout }),
): Promise<GemmRacer> {
  const { rows, columns, depth, a, b } = problem;
  const { engine } = runner;
  const { context } = engine;
  const memory = await DeviceMemory.allocate(context, 'matrices', [['a', 4 * rows * depth], ['b', 4 * depth * columns]]);
  const shapeA = layout.transposeA ? [depth, rows] : [rows, depth];
  const shapeB = layout.transposeB ? [columns, depth] : [depth, columns];
  const product = build(parameter('a', shapeA), parameter('b', shapeB));
  let executable: Executable;
  try {
    executable = await Executable.prepare(context, await compileFor(runner, { product }), memory.tensors);
  } catch (error) {
    memory.dispose();
    throw error;
  }
  memory.write('b', b);
  memory.write('a', a[0]!);
  let current: Variant = 0;
  const load = (variant: Variant): void => {
    if (variant !== current) memory.write('a', a[variant]!);
    current = variant;
  };
  return {
    executable, load,
    async run(variant, count) {
      load(variant);
      for (let n = 0; n < count; n++) await executable.run({}, { read: [] });
      await idle(engine);
    },
    read: () => readOutputs(engine, executable, ['product']),
    dispose() {
      executable.dispose();
      memory.dispose();
    },
  };
}
