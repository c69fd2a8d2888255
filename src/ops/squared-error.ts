/**
 * Differences between encoder and decoder features beyond their cosine, of INP-Former++: per token the mean over channels
 * of (en - de)^2, and per channel the residual (1 - cos) |en - de| (Eq. 7) that the segmentation head works on.
 */
import { residualKernel, tokenSquaredErrorGradientKernel, tokenSquaredErrorKernel } from '../../shaders/squared-error.wgsl.ts';
import { mapKernel } from '../../shaders/reduction.wgsl.ts';
import { UsageError } from '../errors.ts';
import { f32 } from '../gpu/wgsl.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { meanOf } from './mean-of.ts';
import { sumTokens } from './sum.ts';
import { tokenCosine } from './token-cosine.ts';

function size({ shape }: TensorSpec): { tokens: number; channels: number } {
  const channels = shape.at(-1)!;
  return { tokens: sizeOf(shape) / channels, channels };
}

function checkPair(name: string, a: TensorSpec, b: TensorSpec): void {
  if (a.shape.length !== 3 || a.shape.join() !== b.shape.join()) {
    throw new UsageError(`${name}: expected two tensors [B, N, C] of one shape, got [${a.shape.join(', ')}] and [${b.shape.join(', ')}].`);
  }
}

/** a, b [B, N, C] -> [B, N] */
export const tokenSquaredErrorOperation: Operation<null> = {
  name: 'tokenSquaredError',
  outputs([a, b]) {
    checkPair('tokenSquaredError', a!, b!);
    return [{ shape: a!.shape.slice(0, 2), dtype: 'f32' }];
  },
  kernels({ inputs: [a], target, read, write }) {
    const { tokens, channels } = size(a!);
    const { source, workgroups } = tokenSquaredErrorKernel({ label: `tokenSquaredError [${a!.shape.join(', ')}]`, tokens, channels, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: 3 * tokens * channels, bytes: 4 * tokens * (2 * channels + 1) }];
  },
  gradient({ inputs: [a, b], outputGradients: [g], needs }) {
    const by = (x: Tensor, other: Tensor) => apply(tokenSquaredErrorGradientOperation, [g!, x, other], null)[0]!;
    return [needs[0] ? by(a!, b!) : undefined, needs[1] ? by(b!, a!) : undefined];
  },
  reference([a, b], { inputs: [spec] }) {
    const { tokens, channels } = size(spec!);
    const y = new Float64Array(tokens);
    a!.forEach((v, i) => { y[Math.floor(i / channels)]! += (v - b![i]!) ** 2 / channels; });
    return [y];
  },
};

/** (g [B, N], x, other [B, N, C]) -> 2/C g (x - other) */
export const tokenSquaredErrorGradientOperation: Operation<null> = {
  name: 'tokenSquaredErrorGradient',
  outputs: ([, x]) => [{ shape: x!.shape, dtype: 'f32' }],
  kernels({ inputs: [, x], target, read, write }) {
    const { tokens, channels } = size(x!);
    const { source, workgroups } = tokenSquaredErrorGradientKernel({ label: `tokenSquaredErrorGradient [${x!.shape.join(', ')}]`, tokens, channels, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), read(2), write(0)], flops: 3 * tokens * channels, bytes: 4 * tokens * (3 * channels + 1) }];
  },
  reference([g, x, other], { inputs: [, spec] }) {
    const { channels } = size(spec!);
    return [x!.map((v, i) => (2 / channels) * g![Math.floor(i / channels)]! * (v - other![i]!))];
  },
};

/** Keeps 0 / 0 finite for an image without any signal. */
const energyFloor = 1e-30;

/** (error [B, N], dots summed over the tokens [B, 3]) -> error over twice the mean square of a's elements in that image; for scoring, without gradient */
export const relativeErrorOperation: Operation<{ channels: number }> = {
  name: 'relativeError',
  outputs([error, sums]) {
    if (error!.shape.length !== 2 || sums!.shape.join() !== [error!.shape[0], 3].join()) {
      throw new UsageError(`relativeError: expected errors [B, N] and sums [B, 3], got [${error!.shape.join(', ')}] and [${sums!.shape.join(', ')}].`);
    }
    return [{ shape: error!.shape, dtype: 'f32' }];
  },
  kernels({ outputs: [y], attributes: { channels }, target, read, write }) {
    const [batch, tokens] = y!.shape as [number, number];
    const { source, workgroups } = mapKernel({
      label: `relativeError [${y!.shape.join(', ')}]`, count: batch * tokens, inputs: ['f32', 'f32'], target,
      value: `x0[i] * ${f32((tokens * channels) / 2)} / max(x1[i / ${tokens}u * 3u + 1u], ${f32(energyFloor)})`,
    });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: 2 * batch * tokens, bytes: 4 * (2 * batch * tokens + 3 * batch) }];
  },
  reference([error, sums], { outputs: [y], attributes: { channels } }) {
    const tokens = y!.shape[1]!;
    return [error!.map((v, i) => (v * tokens * channels) / 2 / Math.max(sums![Math.floor(i / tokens) * 3 + 1]!, energyFloor))];
  },
};

/** (a, b [B, N, C], distance [B, N]) -> distance |a - b| [B, N, C], through which no gradient flows */
export const residualOperation: Operation<null> = {
  name: 'residual',
  outputs([a, b, distance]) {
    checkPair('residual', a!, b!);
    if (distance!.shape.join() !== a!.shape.slice(0, 2).join()) {
      throw new UsageError(`residual: the features [${a!.shape.join(', ')}] need a distance for each token, got [${distance!.shape.join(', ')}].`);
    }
    return [{ shape: a!.shape, dtype: 'f32' }];
  },
  kernels({ inputs: [a], target, read, write }) {
    const { tokens, channels } = size(a!);
    const { source, workgroups } = residualKernel({ label: `residual [${a!.shape.join(', ')}]`, tokens, channels, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), read(2), write(0)], flops: 2 * tokens * channels, bytes: 4 * tokens * (3 * channels + 1) }];
  },
  gradient: () => [undefined, undefined, undefined],
  reference([a, b, distance], { inputs: [spec] }) {
    const { channels } = size(spec!);
    return [a!.map((v, i) => distance![Math.floor(i / channels)]! * Math.abs(v - b![i]!))];
  },
};

/** Mean over channels of (a - b)^2 for each token of a, b [B, N, C]: [B, N]. */
export function tokenSquaredError(a: Tensor, b: Tensor): Tensor {
  return apply(tokenSquaredErrorOperation, [a, b], null)[0]!;
}

/**
 * The squared error of each token over twice the mean square of the image's encoder features, [B, N]: without a unit, and equal to
 * 1 - cos for a token of average length that is rebuilt at its length. No gradient.
 * @param dots of en and de, from {@link tokenCosine}
 */
export function relativeSquaredError(en: Tensor, de: Tensor, dots: Tensor): Tensor {
  return apply(relativeErrorOperation, [tokenSquaredError(en, de), sumTokens(dots)], { channels: en.shape[2]! })[0]!;
}

/**
 * Mean over feature groups of (1 - cos) |en - de|, [B, N, C], without gradient (Eq. 7).
 * @param groups en, de [B, N, C] of each group, and their distance 1 - cos [B, N], where it is there already
 */
export function residual(groups: readonly { en: Tensor; de: Tensor; distance?: Tensor }[]): Tensor {
  return meanOf(groups.map(({ en, de, distance = tokenCosine(en, de).distance }) => apply(residualOperation, [en, de, distance], null)[0]!));
}
