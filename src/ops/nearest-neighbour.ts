/**
 * How far each token is from the nearest of many stored ones: y_n = 1 - max_r cos(x_n, m_r), the search behind memories of
 * normal features. The kernel is a matrix product that keeps the largest value of each row instead of the values, so the
 * distances to all rows never exist. A memory longer than one binding comes in slices, each taking the result so far.
 *
 * Source: AnomalyDINO (Damm et al., WACV 2025) and VisionAD (Wang et al., 2025), which search exhaustively by cosine.
 */
import { nearestRowKernel, nearestRowResultKernel } from '../../shaders/nearest-neighbour.wgsl.ts';
import { normFloor } from '../../shaders/cosine.wgsl.ts';
import type { GemmShape } from '../../shaders/gemm.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { KernelTuning, Operation } from '../graph/operation.ts';
import { apply, dataBytesOf, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { gemmCandidates, lanesOf, variantFor } from './gemm-variants.ts';

function shapeOf([x, memory, soFar]: readonly TensorSpec[]): GemmShape {
  const depth = x!.shape.at(-1)!;
  const [columns, width] = memory!.shape as [number, number];
  const rows = sizeOf(x!.shape) / depth;
  if (x!.shape.length < 2 || memory!.shape.length !== 2 || width !== depth || (soFar && sizeOf(soFar.shape) !== rows)) {
    throw new UsageError(`nearestNeighbour: expected tokens [.., C], a memory [R, C] and distances so far [..], got ${[x, memory, soFar].map((t) => t && `[${t.shape.join(', ')}]`).filter(Boolean).join(', ')}.`);
  }
  const strides = { a: rows * depth, b: columns * depth, c: rows * columns, bias: columns, rowSums: rows };
  return { rows, columns, depth, transposeA: false, transposeB: true, batch: 1, strides };
}

/** (x [.., C], memory [R, C] of unit rows, distances so far [..] or nothing) -> distance [..] */
export const nearestNeighbourOperation: Operation<null> = {
  name: 'nearestNeighbour',
  outputs(inputs) {
    shapeOf(inputs);
    return [{ shape: inputs[0]!.shape.slice(0, -1), dtype: 'f32' }];
  },
  kernels({ inputs, target, read, write, scratch }) {
    const shape = shapeOf(inputs);
    const { rows, columns, depth } = shape;
    const halfB = inputs[1]!.dtype === 'f16';
    const key = `nearest of ${columns}, ${rows}x${depth}${halfB ? ', f16' : ''}`;
    const preferred = variantFor(shape, target);
    const candidates = gemmCandidates(shape, target);
    const search = (name: string | undefined) => nearestRowKernel({ ...shape, label: key, variant: candidates[name ?? ''] ?? preferred, lanes: lanesOf(target), halfB, target });
    const { source, workgroups, parts } = search(target.tuning?.get(key));
    // As many parts as the variant with the most has: the bindings are the same for all.
    const most = Math.max(parts, ...Object.keys(candidates).map((name) => search(name).parts));
    const best = scratch(4 * rows * most);
    const tuning: KernelTuning = {
      key, variants: () => Object.keys(candidates).map((name) => {
        const candidate = search(name);
        return { name, kernel: candidate.source, workgroups: candidate.workgroups };
      }),
    };
    const result = nearestRowResultKernel({ label: `${key}, result`, rows, depth, parts, hasPrevious: inputs.length > 2, target });
    return [
      { kernel: source, workgroups, bindings: [read(0), read(1), best.write], flops: 2 * rows * columns * depth, bytes: dataBytesOf(inputs[0]!) + dataBytesOf(inputs[1]!) + 4 * rows * parts, tuning },
      {
        kernel: result.source, workgroups: result.workgroups, bindings: [best.read, read(0), ...(inputs.length > 2 ? [read(2)] : []), write(0)],
        flops: rows * (2 * depth + parts), bytes: dataBytesOf(inputs[0]!) + 4 * rows * (parts + 1),
      },
    ];
  },
  reference([x, memory, soFar], { inputs }) {
    const { rows, columns, depth } = shapeOf(inputs);
    return [Float64Array.from({ length: rows }, (_, n) => {
      const row = x!.subarray(n * depth, (n + 1) * depth);
      const norm = Math.max(normFloor, Math.sqrt(row.reduce((sum, v) => sum + v * v, 0)));
      let best = -Infinity;
      for (let r = 0; r < columns; r++) best = Math.max(best, row.reduce((sum, v, c) => sum + v * memory![r * depth + c]!, 0));
      return Math.min(soFar?.[n] ?? Infinity, Math.max(0, 1 - best / norm));
    })];
  },
};

/**
 * Cosine distance of each token to the nearest row of a memory.
 * @param x [.., C]
 * @param slices the memory, [R_i, C] each, f32 or f16, of rows of norm 1
 * @returns [..]
 */
export function nearestNeighbour(x: Tensor, slices: readonly Tensor[]): Tensor {
  if (slices.length === 0) throw new UsageError('nearestNeighbour: the memory has no rows.');
  return slices.reduce<Tensor | undefined>((soFar, memory) => apply(nearestNeighbourOperation, [x, memory, ...(soFar ? [soFar] : [])], null)[0]!, undefined)!;
}
