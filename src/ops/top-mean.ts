/**
 * The image score: the mean of the k = max(1, floor(fraction P)) largest of a row's P values. Exact, ties included:
 * sum of the values above the k-th largest t, plus (k - how many those are) t, over k.
 */
import { topMeanKernel } from '../../shaders/top-mean.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, type Tensor } from '../graph/tensor.ts';

export const topMeanOperation: Operation<{ count: number }> = {
  name: 'topMean',
  outputs([x]) {
    if (x!.shape.length !== 2) throw new UsageError(`topMean: x has shape [${x!.shape.join(', ')}], expected [B, P].`);
    return [{ shape: [x!.shape[0]!], dtype: 'f32' }];
  },
  kernels({ inputs: [x], attributes: { count }, target, read, write }) {
    const [rows, columns] = x!.shape as [number, number];
    const { source, workgroups, passes } = topMeanKernel({ label: `topMean ${count} of [${rows}, ${columns}]`, rows, columns, count, target });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: rows * columns * passes, bytes: 4 * rows * (columns + 1) }];
  },
  reference([x], { inputs: [spec], attributes: { count } }) {
    const [rows, columns] = spec!.shape as [number, number];
    return [Float64Array.from({ length: rows }, (_, row) => {
      const largest = x!.slice(row * columns, (row + 1) * columns).sort().subarray(columns - count);
      return largest.reduce((a, b) => a + b, 0) / count;
    })];
  },
};

/**
 * x [B, P] to [B]: the mean of each row's floor(fraction P) largest values, at least one. A NaN in x makes NaN.
 * No gradient.
 */
export function topMean(x: Tensor, { fraction = 0.01 }: { fraction?: number } = {}): Tensor {
  if (!(fraction > 0 && fraction <= 1)) throw new UsageError(`topMean: fraction must be above 0 and at most 1, got ${fraction}.`);
  return apply(topMeanOperation, [x], { count: Math.max(1, Math.floor(fraction * (x.shape.at(-1) ?? 0))) })[0]!;
}
