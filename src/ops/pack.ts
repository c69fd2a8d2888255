/**
 * Tensors side by side in one flat tensor, each at its own offset. It is a concatenation: what the graph computes is
 * written there in the first place, and only leaves and tensors that lie elsewhere already are copied.
 */
import { copyKernel } from '../../shaders/optimizer.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';

export const packOperation: Operation<{ offsets: readonly number[]; total: number }> = {
  name: 'pack',
  concatenation: (_, { offsets }) => offsets,
  outputs(inputs, { offsets, total }) {
    if (inputs.length === 0 || inputs.length !== offsets.length) throw new UsageError(`pack: ${inputs.length} tensors need as many offsets (at least one), got ${offsets.length}.`);
    let end = 0;
    inputs.forEach((t, i) => {
      const offset = offsets[i]!;
      if (offset < end || offset % segmentAlignment !== 0) {
        throw new UsageError(`pack: tensor ${i} at ${offset} must begin at a multiple of ${segmentAlignment}, after the end of the one before (${end}).`);
      }
      end = offset + sizeOf(t.shape);
    });
    if (end > total) throw new UsageError(`pack: the tensors end at ${end}, past the total of ${total}.`);
    return [{ shape: [total], dtype: 'f32' }];
  },
  kernels({ inputs, placed, attributes: { offsets }, target, read, write }) {
    return inputs.flatMap((t, i) => {
      if (placed[i]) return [];
      const count = sizeOf(t.shape);
      const { source, workgroups } = copyKernel({ label: `pack ${count} at ${offsets[i]}`, count, offset: offsets[i]!, target });
      return [{ kernel: source, workgroups, bindings: [read(i), write(0)], flops: 0, bytes: 8 * count }];
    });
  },
  reference(inputs, { attributes: { offsets, total } }) {
    const y = new Float64Array(total);
    inputs.forEach((x, i) => y.set(x, offsets[i]));
    return [y];
  },
};

/** Elements to which segments of a flat group are aligned: 256 bytes, so that each can be bound alone. */
export const segmentAlignment = 64;

/** Where a tensor lies in a flat group, in elements. */
export interface Segment {
  readonly offset: number;
  readonly length: number;
}

/** Aligned places for tensors of these lengths, one after another, and the flat group's total length (aligned too). */
export function flatSegments(lengths: readonly number[]): { segments: Segment[]; total: number } {
  let total = 0;
  const segments = lengths.map((length) => {
    const offset = total;
    total += Math.ceil(length / segmentAlignment) * segmentAlignment;
    return { offset, length };
  });
  return { segments, total };
}

/**
 * One flat tensor [total] with the tensors at these element offsets. On the GPU the padding between them is whatever
 * the memory held: readers must go by the segments.
 */
export function pack(tensors: readonly Tensor[], offsets: readonly number[], total: number): Tensor {
  return apply(packOperation, tensors, { offsets, total })[0]!;
}
