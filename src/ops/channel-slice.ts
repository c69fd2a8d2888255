/**
 * A channel slice is a run of channels of a [B, N, stride] tensor: the queries, keys or values inside what one linear
 * layer computed for several of them ([B, N, 3C] or [B, N, 2C]). Attention reads slices in place; those of one tensor
 * are one input of the node, whose gradient is one tensor into which each part is written.
 */
import { UsageError } from '../errors.ts';
import type { Tensor, TensorSpec } from '../graph/tensor.ts';

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

/** Where a slice lies among a node's inputs. */
export interface SlicePlace {
  readonly input: number;
  readonly offset: number;
}

/**
 * The distinct inputs of slices, and each slice's place in them. Slices of one tensor share an input unless they
 * overlap: then the tensor is an input twice, and differentiation sums the two gradients.
 */
export function packSlices(slices: readonly ChannelSlice[]): { inputs: Tensor[]; places: SlicePlace[] } {
  const inputs: Tensor[] = [];
  const places: SlicePlace[] = [];
  slices.forEach((slice, s) => {
    const isFree = (candidate: number): boolean => places.every((place, p) => place.input !== candidate
      || p >= s || place.offset + slices[p]!.count <= slice.offset || slice.offset + slice.count <= place.offset);
    let input = inputs.findIndex((t, i) => t === slice.tensor && isFree(i));
    if (input < 0) input = inputs.push(slice.tensor) - 1;
    places.push({ input, offset: slice.offset });
  });
  return { inputs, places };
}

/** The heads of a slice inside its tensor, for kernels and references: channel c of head h is `offset + h * headSize + c`. */
export interface HeadSlice {
  /** Which of the node's inputs. */
  readonly input: number;
  readonly rows: number;
  readonly stride: number;
  readonly offset: number;
}

/** Checks one slice's place against the input's shape. */
export function headSlice(operation: string, what: string, inputs: readonly TensorSpec[], place: SlicePlace, count: number, batch: number): HeadSlice {
  const { shape } = inputs[place.input]!;
  const [b, rows, stride] = shape;
  if (shape.length !== 3 || b !== batch || place.offset + count > stride!) {
    throw new UsageError(`${operation}: ${what} must hold ${count} channels from ${place.offset} of [${batch}, N, channels], its tensor is [${shape.join(', ')}].`);
  }
  return { input: place.input, rows: rows!, stride: stride!, offset: place.offset };
}

/** Channels of input `input` that none of the slices covers, as [start, end) ranges: their gradient is 0. */
export function uncoveredChannels(slices: readonly HeadSlice[], count: number, input: number): { start: number; end: number }[] {
  const own = slices.filter((s) => s.input === input).sort((a, b) => a.offset - b.offset);
  const gaps: { start: number; end: number }[] = [];
  let at = 0;
  for (const { offset } of own) {
    if (offset > at) gaps.push({ start: at, end: offset });
    at = offset + count;
  }
  if (own.length > 0 && at < own[0]!.stride) gaps.push({ start: at, end: own[0]!.stride });
  return gaps;
}
