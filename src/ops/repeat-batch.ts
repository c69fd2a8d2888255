/** One tensor for every image of a batch, y[b] = x, and its gradient, the sum over the batch in order. */
import { repeatBatchKernel, sumBatchKernel } from '../../shaders/tokens.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';
import { reshape } from './reshape.ts';

export const repeatBatchOperation: Operation<{ batch: number }> = {
  name: 'repeatBatch',
  outputs: ([x], { batch }) => [{ shape: [batch, ...x!.shape], dtype: 'f32' }],
  kernels({ inputs: [x], attributes: { batch }, target, read, write }) {
    const size = sizeOf(x!.shape);
    const { source, workgroups } = repeatBatchKernel({ label: `repeatBatch ${batch} x [${x!.shape.join(', ')}]`, batch, size, target });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: 0, bytes: 4 * (1 + batch) * size }];
  },
  gradient: ({ outputGradients: [g] }) => [sumBatch(g!)],
  reference: ([x], { attributes: { batch } }) => [Float64Array.from({ length: batch * x!.length }, (_, i) => x![i % x!.length]!)],
};

export const sumBatchOperation: Operation<null> = {
  name: 'sumBatch',
  outputs([x]) {
    if (x!.shape.length < 2) throw new UsageError(`sumBatch: x has shape [${x!.shape.join(', ')}], expected [B, ..].`);
    return [{ shape: x!.shape.slice(1), dtype: 'f32' }];
  },
  kernels({ inputs: [x], outputs: [y], target, read, write }) {
    const batch = x!.shape[0]!;
    const size = sizeOf(y!.shape);
    const { source, workgroups } = sumBatchKernel({ label: `sumBatch [${x!.shape.join(', ')}]`, batch, size, target });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: batch * size, bytes: 4 * (1 + batch) * size }];
  },
  gradient: ({ inputs: [x], outputGradients: [g] }) => [repeatBatch(g!, x!.shape[0]!)],
  reference([x], { inputs: [spec], outputs: [y] }) {
    const size = sizeOf(y!.shape);
    return [Float64Array.from({ length: size }, (_, i) => {
      let sum = 0;
      for (let b = 0; b < spec!.shape[0]!; b++) sum += x![b * size + i]!;
      return sum;
    })];
  },
};

/** x [..] to [batch, ..], with gradient; a batch of one is x itself. */
export function repeatBatch(x: Tensor, batch: number): Tensor {
  return batch === 1 ? reshape(x, [1, ...x.shape]) : apply(repeatBatchOperation, [x], { batch })[0]!;
}

/** x [B, ..] to [..]: the sum over the batch, with gradient. */
export function sumBatch(x: Tensor): Tensor {
  return apply(sumBatchOperation, [x], null)[0]!;
}
