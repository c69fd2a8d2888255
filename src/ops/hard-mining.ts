/**
 * INP-Former's soft mining: the gradient that reaches a decoder feature is multiplied per token by
 * (M / mean M)^power, M = 1 - cos(en, de), the mean over batch and tokens, all of it detached. Since the loss sees the
 * features only through their dot products, and the gradient by the features is linear in the gradient by those,
 * the factor is applied to [B, N, 3] and never to [B, N, C].
 */
import { mapKernel } from '../../shaders/reduction.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { add } from './add.ts';
import { mean, meanOverAll, sum } from './sum.ts';
import { cosineMap, tokenCosine, vectorCosine } from './token-cosine.ts';

/** Keeps 0 / 0 finite where encoder and decoder agree everywhere; far below any mean that rounding leaves. */
const meanFloor = 1e-30;

/** (map [..], mean [1]) -> (map / mean)^power, without gradient */
export const powerOfRatioOperation: Operation<{ power: number }> = {
  name: 'powerOfRatio',
  outputs([map, average], { power }) {
    if (sizeOf(average!.shape) !== 1) throw new UsageError(`powerOfRatio: the mean must be one element, got [${average!.shape.join(', ')}].`);
    if (!Number.isInteger(power) || power < 1) throw new UsageError(`powerOfRatio: the power must be a positive integer, got ${power}.`);
    return [{ shape: map!.shape, dtype: 'f32' }];
  },
  kernels({ outputs: [y], attributes: { power }, target, read, write }) {
    const count = sizeOf(y!.shape);
    const ratio = '(x0[i] / max(x1[0], 1e-30f))';
    const { source, workgroups } = mapKernel({
      label: `powerOfRatio ${power} [${y!.shape.join(', ')}]`, count, inputs: ['f32', 'f32'], target,
      value: Array.from({ length: power }, () => ratio).join(' * '),
    });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: (power + 1) * count, bytes: 4 * (2 * count + 1) }];
  },
  gradient: () => [undefined, undefined],
  reference: ([map, average], { attributes: { power } }) => [map!.map((m) => (m / Math.max(average![0]!, meanFloor)) ** power)],
};

/** Identity of x [B, N, K]; its gradient is multiplied by factor [B, N]. */
export const scaleTokenGradientOperation: Operation<null> = {
  name: 'scaleTokenGradient',
  alias: () => [0],
  outputs: ([x, factor]) => [{ shape: checkFactor('scaleTokenGradient', x!, factor!), dtype: 'f32' }],
  kernels: () => [],
  gradient: ({ inputs: [, factor], outputGradients: [g] }) => [scaleTokens(g!, factor!), undefined],
  reference: ([x]) => [x!],
};

/** y[b, n, k] = x[b, n, k] * factor[b, n], the factor without gradient */
export const scaleTokensOperation: Operation<null> = {
  name: 'scaleTokens',
  outputs: ([x, factor]) => [{ shape: checkFactor('scaleTokens', x!, factor!), dtype: 'f32' }],
  kernels({ outputs: [y], target, read, write }) {
    const count = sizeOf(y!.shape);
    const columns = y!.shape.at(-1)!;
    const { source, workgroups } = mapKernel({
      label: `scaleTokens [${y!.shape.join(', ')}]`, count, inputs: ['f32', 'f32'], target, value: `x0[i] * x1[i / ${columns}u]`,
    });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: count, bytes: 4 * (2 * count + count / columns) }];
  },
  gradient: ({ inputs: [, factor], outputGradients: [g] }) => [scaleTokens(g!, factor!), undefined],
  reference: ([x, factor], { outputs: [y] }) => [x!.map((v, i) => v * factor![Math.floor(i / y!.shape.at(-1)!)]!)],
};

function checkFactor(name: string, x: TensorSpec, factor: TensorSpec): TensorSpec['shape'] {
  if (x.shape.slice(0, -1).join() !== factor.shape.join()) {
    throw new UsageError(`${name}: x [${x.shape.join(', ')}] needs a factor for each row, got [${factor.shape.join(', ')}].`);
  }
  return x.shape;
}

/** (map / average)^power, no gradient. @param average [1]: {@link mean}, or {@link meanOverAll} where the batch is in slices */
export function powerOfRatio(map: Tensor, average: Tensor, power: number): Tensor {
  return apply(powerOfRatioOperation, [map, average], { power })[0]!;
}

/** x [B, N, K] itself, whose gradient is multiplied by factor [B, N] on its way back. */
export function scaleTokenGradient(x: Tensor, factor: Tensor): Tensor {
  return apply(scaleTokenGradientOperation, [x, factor], null)[0]!;
}

/** x [B, N, K] times factor [B, N]; the factor gets no gradient. */
export function scaleTokens(x: Tensor, factor: Tensor): Tensor {
  return apply(scaleTokensOperation, [x, factor], null)[0]!;
}

/** The gradient weight (M / mean M)^power of a whole batch, [B, N]; en, de [B, N, C]. */
export function hardMiningFactor(en: Tensor, de: Tensor, options: { power: number } = { power: 3 }): Tensor {
  const map = cosineMap(en, de);
  return powerOfRatio(map, mean(map), options.power);
}

/**
 * Mean over the batch of 1 - cos(vec en_b, vec de_b), [1], with the soft-mining weight on de's gradient. The batch may
 * come in slices: losses and weights are those of the whole. en and de are read once forward and once backward.
 * @param slices en (detached, no gradient wanted) and de [B_i, N, C] of each slice of the batch, for one feature group
 * @param options.power 0 leaves the gradient as it is
 */
export function miningCosineLoss(slices: readonly { en: Tensor; de: Tensor }[], options: { power: number } = { power: 3 }): Tensor {
  const cosines = slices.map(({ en, de }) => tokenCosine(en, de));
  const dots = cosines.map((c) => c.dots);
  const maps = cosines.map((c) => c.distance);
  const average = meanOverAll(maps);
  const images = dots.reduce((total, d) => total + d.shape[0]!, 0);
  return dots
    .map((d, i) => (options.power === 0 ? d : scaleTokenGradient(d, powerOfRatio(maps[i]!, average, options.power))))
    .map((d) => sum(vectorCosine(d), 1 / images))
    .reduce(add);
}
