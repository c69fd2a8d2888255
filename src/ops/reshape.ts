/** The same memory under another shape: no kernel runs. */
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Shape, type Tensor } from '../graph/tensor.ts';

export const reshapeOperation: Operation<{ shape: Shape }> = {
  name: 'reshape',
  alias: () => [0],
  outputs([x], { shape }) {
    if (sizeOf(x!.shape) !== sizeOf(shape)) throw new UsageError(`reshape: [${x!.shape.join(', ')}] does not fit [${shape.join(', ')}].`);
    return [{ shape, dtype: x!.dtype }];
  },
  kernels: () => [],
  gradient: ({ inputs: [x], outputGradients: [g] }) => [reshape(g!, x!.shape)],
  reference: ([x]) => [x!],
};

export function reshape(x: Tensor, shape: Shape): Tensor {
  return x.shape.join() === shape.join() ? x : apply(reshapeOperation, [x], { shape })[0]!;
}
