/**
 * A channel slice is a run of channels of a [B, N, stride] tensor: the queries, keys or values inside what one linear
 * layer computed for several of them ([B, N, 3C] or [B, N, 2C]). Attention reads slices in place; those of one tensor
 * are one input of the node, whose gradient is one tensor into which each part is written.
 */
import { UsageError } from '../errors.ts';
import type { Tensor } from '../graph/tensor.ts';

/** Channels `offset` to `offset + count - 1` of `tensor` [B, N, stride]. */
export interface ChannelSlice {
  readonly tensor: Tensor;
  readonly offset: number;
  readonly count: number;
}

/**
 * The slice of `count` channels from `offset`; by default all channels.
 * @throws UsageError where the tensor has not these channels.
 */
export function channels(tensor: Tensor, offset = 0, count = tensor.shape.at(-1)! - offset): ChannelSlice {
  const stride = tensor.shape.at(-1)!;
  if (tensor.shape.length !== 3) throw new UsageError(`A channel slice needs a tensor [B, N, channels], ${tensor.name} is [${tensor.shape.join(', ')}].`);
  if (!Number.isInteger(offset) || !Number.isInteger(count) || offset < 0 || count < 1 || offset + count > stride) {
    throw new UsageError(`${tensor.name} has ${stride} channels: there is no slice of ${count} from ${offset}.`);
  }
  return { tensor, offset, count };
}
