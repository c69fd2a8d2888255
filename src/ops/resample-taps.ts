/**
 * Where a separable resampling of one axis looks and how much each place counts: y[i] = sum_t weight[t, i] x[index[t, i]].
 * The tables are computed in f64 on the CPU, so a kernel only gathers, whatever the method; its gradient is the same
 * gather with the transposed table.
 */
import { UsageError } from '../errors.ts';

export interface TapTable {
  readonly inputSize: number;
  readonly outputSize: number;
  /** Taps of one output; where an output has fewer, the rest have weight 0. */
  readonly width: number;
  /** [width, outputSize] */
  readonly index: Uint32Array;
  /** [width, outputSize] */
  readonly weight: Float64Array;
}

/**
 * With n inputs and m outputs:
 * - `bilinear`: source max((i + 1/2) n/m - 1/2, 0), no antialias (PyTorch's `align_corners=False`);
 * - `bilinear-align-corners`: source i (n - 1)/(m - 1);
 * - `bicubic`: Keys' kernel with a = -0.75, source (i + 1/2) n/(m + offset) - 1/2, indices clamped at the border.
 *   DINOv2's position embedding with offset 0.1, which INP-Former keeps for every encoder;
 * - `bicubic-antialias`: a = -0.5, the kernel widened by n/m where it shrinks, weights normalised over what lies inside
 *   (PyTorch's `antialias=True`): how DINOv2's own register models resize their position embedding, with offset 0;
 * - `nearest`: source floor(i n/m).
 */
export type ResampleKind = 'bilinear' | 'bilinear-align-corners' | 'bicubic' | 'bicubic-antialias' | 'nearest';

/** @param offset of the bicubic scale; the other kinds take none. */
export function resampleTaps(kind: ResampleKind, inputSize: number, outputSize: number, offset = 0): TapTable {
  if (![inputSize, outputSize].every((n) => Number.isInteger(n) && n > 0)) {
    throw new UsageError(`resample: sizes must be positive integers, got ${inputSize} to ${outputSize}.`);
  }
  if (offset !== 0 && kind !== 'bicubic') throw new UsageError(`resample: only bicubic takes an offset, got ${offset} for ${kind}.`);
  const taps = Array.from({ length: outputSize }, (_, i) => tapsOf(kind, i, inputSize, outputSize, offset));
  return table(inputSize, taps);
}

type Tap = readonly [index: number, weight: number];

function tapsOf(kind: ResampleKind, i: number, n: number, m: number, offset: number): Tap[] {
  const last = n - 1;
  switch (kind) {
    case 'nearest': return [[Math.min(Math.floor((i * n) / m), last), 1]];
    case 'bilinear': return linear(Math.max(((i + 0.5) * n) / m - 0.5, 0), last);
    case 'bilinear-align-corners': return linear(m === 1 ? 0 : (i * last) / (m - 1), last);
    case 'bicubic': {
      const source = ((i + 0.5) * n) / (m + offset) - 0.5;
      const floor = Math.floor(source);
      return [-1, 0, 1, 2].map((t) => [Math.min(Math.max(floor + t, 0), last), cubic(source - floor - t, -0.75)]);
    }
    case 'bicubic-antialias': {
      const stretch = Math.max(n / m, 1);
      const centre = ((i + 0.5) * n) / m;
      const from = Math.max(0, Math.trunc(centre - 2 * stretch + 0.5));
      const to = Math.min(n, Math.trunc(centre + 2 * stretch + 0.5));
      const weights = Array.from({ length: to - from }, (_, t) => cubic((from + t + 0.5 - centre) / stretch, -0.5));
      const sum = weights.reduce((a, b) => a + b, 0);
      return weights.map((weight, t) => [from + t, weight / sum]);
    }
  }
}

function linear(source: number, last: number): Tap[] {
  const floor = Math.min(Math.floor(source), last);
  const share = source - floor;
  return [[floor, 1 - share], [Math.min(floor + 1, last), share]];
}

/** Keys' cubic convolution kernel. */
function cubic(distance: number, a: number): number {
  const x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

function table(inputSize: number, taps: readonly (readonly Tap[])[]): TapTable {
  const outputSize = taps.length;
  const width = Math.max(1, ...taps.map((t) => t.length));
  const index = new Uint32Array(width * outputSize);
  const weight = new Float64Array(width * outputSize);
  taps.forEach((list, i) => list.forEach(([from, share], t) => {
    index[t * outputSize + i] = from;
    weight[t * outputSize + i] = share;
  }));
  return { inputSize, outputSize, width, index, weight };
}

/** The adjoint: from gradients of the outputs to gradients of the inputs, each summed in the order of the outputs. */
export function transposeTaps(taps: TapTable): TapTable {
  const lists: Tap[][] = Array.from({ length: taps.inputSize }, () => []);
  for (let i = 0; i < taps.outputSize; i++) {
    for (let t = 0; t < taps.width; t++) {
      const at = t * taps.outputSize + i;
      if (taps.weight[at] !== 0) lists[taps.index[at]!]!.push([i, taps.weight[at]!]);
    }
  }
  return table(taps.outputSize, lists);
}

/** A symmetric window of odd length that slides over `size` places, with zeros beyond the ends. */
export function windowTaps(window: Float64Array, size: number): TapTable {
  const reach = (window.length - 1) / 2;
  return table(size, Array.from({ length: size }, (_, i) =>
    Array.from(window, (weight, t): Tap => [i + t - reach, weight]).filter(([from]) => from >= 0 && from < size)));
}

/** One table that does what these do one after another. */
export function composeTaps(...tables: readonly [TapTable, ...TapTable[]]): TapTable {
  return tables.reduce((first, second) => {
    if (first.outputSize !== second.inputSize) throw new UsageError(`resample: a table of ${first.outputSize} outputs is followed by one of ${second.inputSize} inputs.`);
    return table(first.inputSize, Array.from({ length: second.outputSize }, (_, i) => {
      const weights = new Map<number, number>();
      for (let s = 0; s < second.width; s++) {
        const between = second.index[s * second.outputSize + i]!;
        const share = second.weight[s * second.outputSize + i]!;
        for (let t = 0; t < first.width; t++) {
          const weight = share * first.weight[t * first.outputSize + between]!;
          const from = first.index[t * first.outputSize + between]!;
          if (weight !== 0) weights.set(from, (weights.get(from) ?? 0) + weight);
        }
      }
      return [...weights].sort(([a], [b]) => a - b);
    }));
  });
}

/** Whether every output is the input of the same place. */
export function isIdentity({ inputSize, outputSize, index, weight }: TapTable): boolean {
  return inputSize === outputSize
    && index.every((from, at) => weight[at] === 0 || (weight[at] === 1 && from === at % outputSize));
}
