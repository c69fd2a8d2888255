/**
 * INP-Former++'s soft coherence (Eq. 3): each token is rebuilt as a mixture of its image's prototypes,
 *
 *   w = softmax_m cos(x, P_m)    f^ = sum_m w_m P_m    L = mean over images of 1 - cos(vec x, vec f^)
 *
 * so that every prototype has a share in every token, and none can do all the work as under the minimum's loss. The mixture
 * and both of its gradients are matrix products, one an image.
 */
import { softAssignmentGradientKernel, softAssignmentKernel } from '../../shaders/soft-coherence.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { add } from './add.ts';
import { coherenceAll } from './coherence.ts';
import { batchMatmul } from './matmul.ts';
import { sum } from './sum.ts';
import { tokenCosine, vectorCosine } from './token-cosine.ts';

function rowsOf({ shape }: TensorSpec): { rows: number; columns: number } {
  const columns = shape.at(-1)!;
  return { rows: sizeOf(shape) / columns, columns };
}

function rowsIn(x: ReferenceArray, columns: number): ReferenceArray[] {
  return Array.from({ length: x.length / columns }, (_, i) => x.subarray(i * columns, (i + 1) * columns));
}

/** distances 1 - cos [.., M] -> softmax over M of the cosines */
export const softAssignmentOperation: Operation<null> = {
  name: 'softAssignment',
  outputs([distance]) {
    if (distance!.shape.length < 2) throw new UsageError(`softAssignment: expected [.., M], got [${distance!.shape.join(', ')}].`);
    return [{ shape: distance!.shape, dtype: 'f32' }];
  },
  kernels({ inputs: [distance], target, read, write }) {
    const { rows, columns } = rowsOf(distance!);
    const { source, workgroups } = softAssignmentKernel({ label: `softAssignment ${rows} x ${columns}`, rows, columns, target });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: 16 * rows * columns, bytes: 8 * rows * columns }];
  },
  gradient: ({ outputs: [weights], outputGradients: [g] }) => [apply(softAssignmentGradientOperation, [g!, weights!], null)[0]!],
  reference([distance], { inputs: [spec] }) {
    const weights = distance!.map((d) => Math.exp(-d));
    for (const row of rowsIn(weights, rowsOf(spec!).columns)) {
      const total = row.reduce((a, b) => a + b, 0);
      row.forEach((w, m) => { row[m] = w / total; });
    }
    return [weights];
  },
};

/** (g, weights) [.., M] -> gradient by the distances */
export const softAssignmentGradientOperation: Operation<null> = {
  name: 'softAssignmentGradient',
  outputs: ([g]) => [{ shape: g!.shape, dtype: 'f32' }],
  kernels({ inputs: [g], target, read, write }) {
    const { rows, columns } = rowsOf(g!);
    const { source, workgroups } = softAssignmentGradientKernel({ label: `softAssignmentGradient ${rows} x ${columns}`, rows, columns, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: 4 * rows * columns, bytes: 12 * rows * columns }];
  },
  reference([g, weights], { inputs: [spec] }) {
    const { columns } = rowsOf(spec!);
    const averages = rowsIn(g!, columns).map((row, r) => row.reduce((total, v, m) => total + v * weights![r * columns + m]!, 0));
    return [g!.map((v, i) => weights![i]! * (averages[Math.floor(i / columns)]! - v))];
  },
};

/** softmax over the last dimension of the cosines, given as distances 1 - cos [.., M]. */
export function softAssignment(distance: Tensor): Tensor {
  return apply(softAssignmentOperation, [distance], null)[0]!;
}

/**
 * Every token as a mixture of its image's prototypes.
 * @param x [B, N, C] @param prototypes [B, M, C]
 * @returns weights w [B, N, M], mixture f^ [B, N, C]
 */
export function softCoherence(x: Tensor, prototypes: Tensor): { weights: Tensor; mixture: Tensor } {
  const weights = softAssignment(coherenceAll(x, prototypes));
  return { weights, mixture: batchMatmul(weights, prototypes) };
}

/**
 * Mean over the batch of 1 - cos(vec x, vec f^), [1]. The batch may come in slices: the loss is that of the whole.
 * @param slices x [B_i, N, C] and prototypes [B_i, M, C] of each slice
 */
export function softCoherenceLoss(slices: readonly { x: Tensor; prototypes: Tensor }[]): Tensor {
  const images = slices.reduce((total, { x }) => total + x.shape[0]!, 0);
  return slices
    .map(({ x, prototypes }) => sum(vectorCosine(tokenCosine(x, softCoherence(x, prototypes).mixture).dots), 1 / images))
    .reduce(add);
}
