/**
 * The mean of several tensors of one shape, y = (x_1 + .. + x_n) / n, optionally of their tokens after a prefix alone:
 * the encoder's taps without cls and registers, and the decoder's groups.
 */
import { meanOfKernel } from '../../shaders/tokens.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Dispatch, Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';
import { scale } from './scale.ts';

/** `prefix` tokens, along the second dimension, are left out; 0 leaves any shape whole. */
export const meanOfOperation: Operation<{ prefix: number }> = {
  name: 'meanOf',
  outputs(inputs, { prefix }) {
    const [first] = inputs;
    if (!first || inputs.some((t) => t.shape.join() !== first.shape.join())) {
      throw new UsageError(`meanOf: expected tensors of one shape, got ${inputs.map((t) => `[${t.shape.join(', ')}]`).join(', ') || 'none'}.`);
    }
    if (prefix === 0) return [{ shape: first.shape, dtype: 'f32' }];
    const tokens = first.shape[1];
    if (first.shape.length !== 3 || !Number.isInteger(prefix) || prefix < 0 || prefix >= tokens!) {
      throw new UsageError(`meanOf: can't leave ${prefix} tokens out of [${first.shape.join(', ')}], expected [B, T, C] with more tokens than that.`);
    }
    return [{ shape: [first.shape[0]!, tokens! - prefix, first.shape[2]!], dtype: 'f32' }];
  },
  kernels({ inputs, outputs: [y], attributes: { prefix }, target, read, write, scratch }) {
    const count = sizeOf(y!.shape);
    const [batch, block, skipped] = prefix === 0
      ? [1, count, 0]
      : [y!.shape[0]!, y!.shape[1]! * y!.shape[2]!, prefix * y!.shape[2]!];
    // Two bindings are the sum so far and the result; the rest are tensors. Later dispatches go on where the one before stopped.
    const limit = target.maxStorageBuffersPerShaderStage - 2;
    const dispatches: Dispatch[] = [];
    let soFar: ReturnType<typeof scratch> | undefined;
    for (let start = 0; start < inputs.length; start += limit) {
      const part = inputs.slice(start, start + limit).map((_, i) => read(start + i));
      const isLast = start + part.length === inputs.length;
      const next = isLast ? undefined : scratch(4 * count);
      const { source, workgroups } = meanOfKernel({
        label: `meanOf ${inputs.length} x [${y!.shape.join(', ')}]`, batch, block, skipped,
        tensors: part.length, continues: soFar !== undefined, divisor: isLast ? inputs.length : 1, target,
      });
      const bindings = [...part, ...(soFar ? [soFar.read] : []), next ? next.write : write(0)];
      dispatches.push({ kernel: source, workgroups, bindings, flops: count * bindings.length, bytes: 4 * count * bindings.length });
      soFar = next;
    }
    return dispatches;
  },
  gradient({ inputs, outputGradients: [g], attributes: { prefix }, needs }) {
    if (prefix > 0) throw new UsageError('meanOfTokens has no gradient: it reads the frozen encoder.');
    const share = scale(g!, 1 / inputs.length);
    return inputs.map((_, i) => (needs[i] ? share : undefined));
  },
  reference(inputs, { inputs: [spec], outputs: [y], attributes: { prefix } }) {
    const [, tokens, channels] = spec!.shape;
    const block = prefix === 0 ? sizeOf(y!.shape) : (tokens! - prefix) * channels!;
    const skipped = prefix === 0 ? 0 : prefix * channels!;
    return [Float64Array.from({ length: sizeOf(y!.shape) }, (_, i) => {
      const from = i + (Math.floor(i / block) + 1) * skipped;
      return inputs.reduce((sum, x) => sum + x[from]!, 0) / inputs.length;
    })];
  },
};

/** The mean of tensors of one shape, with gradient. */
export function meanOf(tensors: readonly Tensor[]): Tensor {
  return tensors.length === 1 ? tensors[0]! : apply(meanOfOperation, tensors, { prefix: 0 })[0]!;
}

/** The mean of [B, T, C] tensors without their first `prefix` tokens: [B, T - prefix, C]. Gradient for prefix 0 alone. */
export function meanOfTokens(taps: readonly Tensor[], prefix: number): Tensor {
  return prefix === 0 ? meanOf(taps) : apply(meanOfOperation, taps, { prefix })[0]!;
}

/** x [B, T, C] without its first `count` tokens: [B, T - count, C]. No gradient. */
export function dropTokens(x: Tensor, count: number): Tensor {
  return meanOfTokens([x], count);
}
