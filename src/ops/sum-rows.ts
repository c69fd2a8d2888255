/** y[c] = sum over all leading dimensions of x[.., c], in a fixed order. */
import { sumRowsKernel } from '../../shaders/sum-rows.wgsl.ts';
import type { Target } from '../gpu/target.ts';
import type { Binding, Dispatch, Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';

/** Rows that one invocation sums in a pass: short chains keep f32 rounding small. */
export const sumRowsChunk = 64;

/** The passes that sum a [rows, columns] matrix over its rows into `result`. */
export function sumRowsDispatches(p: {
  source: Binding; rows: number; columns: number; result: Binding; target: Target;
  scratch(bytes: number): { read: Binding; write: Binding };
}): Dispatch[] {
  const { columns, target } = p;
  const dispatches: Dispatch[] = [];
  let { rows, source } = p;
  for (;;) {
    const chunks = Math.ceil(rows / sumRowsChunk);
    const part = chunks === 1 ? undefined : p.scratch(4 * chunks * columns);
    const { source: kernel, workgroups } = sumRowsKernel({ label: `sumRows ${rows}x${columns}`, rows, columns, chunk: sumRowsChunk, target });
    dispatches.push({ kernel, workgroups, bindings: [source, part?.write ?? p.result], flops: rows * columns, bytes: 4 * (rows + chunks) * columns });
    if (!part) return dispatches;
    source = part.read;
    rows = chunks;
  }
}

export const sumRowsOperation: Operation<null> = {
  name: 'sumRows',
  outputs: ([x]) => [{ shape: [x!.shape.at(-1)!], dtype: 'f32' }],
  kernels({ inputs: [x], target, read, write, scratch }) {
    const columns = x!.shape.at(-1)!;
    return sumRowsDispatches({ source: read(0), rows: sizeOf(x!.shape) / columns, columns, result: write(0), target, scratch });
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
