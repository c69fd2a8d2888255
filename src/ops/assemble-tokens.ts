/**
 * The encoder's token sequence: cls + position[0], then the registers WITHOUT a position (DINOv2 inserts them after
 * the embedding was added), then patches + position[1..]. Frozen: no gradient.
 */
import { assembleTokensKernel } from '../../shaders/tokens.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';

/** Inputs: patches, cls, position, and registers where there are any. */
export const assembleTokensOperation: Operation<null> = {
  name: 'assembleTokens',
  outputs([patches, cls, position, registers]) {
    const [batch, count, channels] = patches!.shape as [number, number, number];
    const extra = registers ? registers.shape.at(-2)! : 0;
    const fits = patches!.shape.length === 3 && sizeOf(cls!.shape) === channels
      && position!.shape.at(-1) === channels && sizeOf(position!.shape) === (1 + count) * channels
      && (!registers || (registers.shape.at(-1) === channels && sizeOf(registers.shape) === extra * channels));
    if (!fits) {
      const shapes = [patches, cls, position, registers].map((t) => (t ? `[${t.shape.join(', ')}]` : 'none'));
      throw new UsageError(
        `assembleTokens: patches ${shapes[0]}, cls ${shapes[1]}, position ${shapes[2]} and registers ${shapes[3]} do not fit; `
        + 'expected [B, N, C], [1, 1, C], [1, 1 + N, C] and [1, R, C].',
      );
    }
    return [{ shape: [batch, 1 + extra + count, channels], dtype: 'f32' }];
  },
  kernels({ inputs, outputs: [y], target, read, write }) {
    const [batch, tokens, channels] = y!.shape as [number, number, number];
    const { source, workgroups } = assembleTokensKernel({
      label: `assembleTokens [${y!.shape.join(', ')}]`, batch, channels, patches: inputs[0]!.shape[1]!, registers: tokens - 1 - inputs[0]!.shape[1]!, target,
    });
    return [{
      kernel: source, workgroups,
      bindings: [...inputs.map((_, i) => read(i)), write(0)],
      flops: sizeOf(y!.shape),
      bytes: 4 * [...inputs, y!].reduce((sum, t) => sum + sizeOf(t.shape), 0),
    }];
  },
  reference([patches, cls, position, registers], { outputs: [y], inputs }) {
    const [batch, tokens, channels] = y!.shape as [number, number, number];
    const count = inputs[0]!.shape[1]!;
    const prefix = tokens - count;
    return [Float64Array.from({ length: batch * tokens * channels }, (_, i) => {
      const c = i % channels;
      const token = Math.floor(i / channels) % tokens;
      const b = Math.floor(i / (channels * tokens));
      if (token === 0) return cls![c]! + position![c]!;
      if (token < prefix) return registers![(token - 1) * channels + c]!;
      return patches![(b * count + token - prefix) * channels + c]! + position![(1 + token - prefix) * channels + c]!;
    })];
  },
};

/**
 * @param patches [B, N, C]
 * @param cls [1, 1, C] or [C]
 * @param registers [1, R, C], or undefined for an encoder without
 * @param position [1, 1 + N, C], already on the patches' grid
 * @returns [B, 1 + R + N, C]
 */
export function assembleTokens(patches: Tensor, cls: Tensor, registers: Tensor | undefined, position: Tensor): Tensor {
  return apply(assembleTokensOperation, [patches, cls, position, ...(registers ? [registers] : [])], null)[0]!;
}
