/** y[c] = sum over all leading dimensions of x[.., c], in a fixed order. */
import { sumRowsKernel } from '../../shaders/sum-rows.wgsl.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';

/** Rows that one invocation sums in the first pass: short chains keep f32 rounding small, and two passes are enough. */
export function sumRowsChunk(rows: number): number {
  return Math.max(64, Math.ceil(Math.sqrt(rows)));
}

export const sumRowsOperation: Operation<null> = {
  name: 'sumRows',
  outputs: ([x]) => [{ shape: [x!.shape.at(-1)!], dtype: 'f32' }],
  kernels({ inputs: [x], target, read, write, scratch }) {
    const columns = x!.shape.at(-1)!;
    const rows = sizeOf(x!.shape) / columns;
    const chunk = sumRowsChunk(rows);
    const chunks = Math.ceil(rows / chunk);
    const pass = (count: number, each: number) => ({
      ...sumRowsKernel({ label: `sumRows ${count}x${columns}`, rows: count, columns, chunk: each, target }),
      flops: count * columns, bytes: 4 * (count + Math.ceil(count / each)) * columns,
    });
    const { source: kernel, ...first } = pass(rows, chunk);
    if (chunks === 1) return [{ ...first, kernel, bindings: [read(0), write(0)] }];
    const parts = scratch(4 * chunks * columns);
    const { source: lastKernel, ...last } = pass(chunks, chunks);
    return [{ ...first, kernel, bindings: [read(0), parts.write] }, { ...last, kernel: lastKernel, bindings: [parts.read, write(0)] }];
  },
  reference([x], { outputs: [y] }) {
    const columns = y!.shape[0]!;
    const sums = new Float64Array(columns);
    x!.forEach((value, i) => (sums[i % columns]! += value));
    return [sums];
  },
};

export function sumRows(x: Tensor): Tensor {
  return apply(sumRowsOperation, [x], null)[0]!;
}
