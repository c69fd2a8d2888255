/**
 * Cosine distances between two token maps, all from one pass over them: s = (a.b, |a|^2, |b|^2) per token. The distance
 * of a token is 1 - s0 / (max(sqrt s1, 1e-8) max(sqrt s2, 1e-8)), and the distance of whole images as vectors is the same
 * function of s summed over the tokens. What flows back to s, summed there over all uses, needs one more pass:
 * g_b = g0 a + 2 g2 b.
 */
import { cosineDistanceGradientKernel, cosineDistanceKernel, normFloor, tokenCosineGradientKernel, tokenCosineKernel } from '../../shaders/cosine.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { add } from './add.ts';
import { mean, sumTokens } from './sum.ts';

/** dots [B, N, 3] = (a.b, |a|^2, |b|^2) of a, b [B, N, C], and distance [B, N] = 1 - cos */
export const tokenCosineOperation: Operation<null> = {
  name: 'tokenCosine',
  outputs([a, b]) {
    if (a!.shape.length !== 3 || a!.shape.join() !== b!.shape.join()) {
      throw new UsageError(`tokenCosine: expected two tensors [B, N, C] of one shape, got [${a!.shape.join(', ')}] and [${b!.shape.join(', ')}].`);
    }
    return [{ shape: [a!.shape[0]!, a!.shape[1]!, 3], dtype: 'f32' }, { shape: a!.shape.slice(0, 2), dtype: 'f32' }];
  },
  kernels({ inputs: [a], target, read, write }) {
    const { tokens, channels } = rows(a!);
    const { source, workgroups } = tokenCosineKernel({ label: `tokenCosine [${a!.shape.join(', ')}]`, tokens, channels, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0), write(1)], flops: tokens * (6 * channels + 8), bytes: 4 * tokens * (2 * channels + 4) }];
  },
  gradient({ inputs: [a, b], outputs: [dots], outputGradients: [ofDots, ofDistance], needs }) {
    const throughDistance = ofDistance && apply(cosineDistanceGradientOperation, [ofDistance, dots!], null)[0]!;
    const g = ofDots && throughDistance ? add(ofDots, throughDistance) : ofDots ?? throughDistance;
    return [
      needs[0] ? apply(tokenCosineGradientOperation, [g!, a!, b!], { self: 1 as const })[0]! : undefined,
      needs[1] ? apply(tokenCosineGradientOperation, [g!, b!, a!], { self: 2 as const })[0]! : undefined,
    ];
  },
  reference([a, b], { inputs: [spec] }) {
    const { tokens, channels } = rows(spec!);
    const y = new Float64Array(3 * tokens);
    a!.forEach((p, i) => {
      const q = b![i]!;
      const t = Math.floor(i / channels);
      y[3 * t]! += p * q;
      y[3 * t + 1]! += p * p;
      y[3 * t + 2]! += q * q;
    });
    return [y, distances(y)];
  },
};

/** (g [B, N, 3], x, other [B, N, C]) -> g0 other + 2 g[self] x */
export const tokenCosineGradientOperation: Operation<{ self: 1 | 2 }> = {
  name: 'tokenCosineGradient',
  outputs: ([, x]) => [{ shape: x!.shape, dtype: 'f32' }],
  kernels({ inputs: [, x], attributes: { self }, target, read, write }) {
    const { tokens, channels } = rows(x!);
    const { source, workgroups } = tokenCosineGradientKernel({ label: `tokenCosineGradient [${x!.shape.join(', ')}]`, tokens, channels, self, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), read(2), write(0)], flops: 4 * tokens * channels, bytes: 4 * tokens * (3 * channels + 3) }];
  },
  reference([g, x, other], { inputs: [, spec], attributes: { self } }) {
    const { channels } = rows(spec!);
    return [x!.map((v, i) => {
      const t = Math.floor(i / channels);
      return g![3 * t]! * other![i]! + 2 * g![3 * t + self]! * v;
    })];
  },
};

function distances(dots: ReferenceArray): ReferenceArray {
  return Float64Array.from({ length: dots.length / 3 }, (_, i) => {
    const [ab, aa, bb] = dots.subarray(3 * i) as unknown as [number, number, number];
    return Math.max(0, 1 - ab / (Math.max(Math.sqrt(aa), normFloor) * Math.max(Math.sqrt(bb), normFloor)));
  });
}

/** [..] = 1 - cos of [.., 3] */
export const cosineDistanceOperation: Operation<null> = {
  name: 'cosineDistance',
  outputs([s]) {
    if (s!.shape.length < 2 || s!.shape.at(-1) !== 3) throw new UsageError(`cosineDistance: expected [.., 3], got [${s!.shape.join(', ')}].`);
    return [{ shape: s!.shape.slice(0, -1), dtype: 'f32' }];
  },
  kernels({ inputs: [s], outputs: [y], target, read, write }) {
    const count = sizeOf(y!.shape);
    const { source, workgroups } = cosineDistanceKernel({ label: `cosineDistance [${s!.shape.join(', ')}]`, count, target });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: 8 * count, bytes: 16 * count }];
  },
  gradient: ({ inputs: [s], outputGradients: [g] }) => [apply(cosineDistanceGradientOperation, [g!, s!], null)[0]!],
  reference: ([s]) => [distances(s!)],
};

/** (g [..], s [.., 3]) -> gradient by s */
export const cosineDistanceGradientOperation: Operation<null> = {
  name: 'cosineDistanceGradient',
  outputs: ([, s]) => [{ shape: s!.shape, dtype: 'f32' }],
  kernels({ inputs: [g, s], target, read, write }) {
    const count = sizeOf(g!.shape);
    const { source, workgroups } = cosineDistanceGradientKernel({ label: `cosineDistanceGradient [${s!.shape.join(', ')}]`, count, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: 14 * count, bytes: 28 * count }];
  },
  reference([g, s]) {
    const y = new Float64Array(s!.length);
    g!.forEach((gradient, i) => {
      const [ab, aa, bb] = s!.subarray(3 * i) as unknown as [number, number, number];
      const norms = Math.max(Math.sqrt(aa), normFloor) * Math.max(Math.sqrt(bb), normFloor);
      y[3 * i] = -gradient / norms;
      if (Math.sqrt(aa) > normFloor) y[3 * i + 1] = (gradient * ab) / (2 * norms * aa);
      if (Math.sqrt(bb) > normFloor) y[3 * i + 2] = (gradient * ab) / (2 * norms * bb);
    });
    return [y];
  },
};

function rows({ shape }: TensorSpec): { tokens: number; channels: number } {
  return { tokens: shape[0]! * shape[1]!, channels: shape[2]! };
}

/** dots = (a.b, |a|^2, |b|^2) [B, N, 3] and distance = 1 - cos [B, N] of each token of a, b [B, N, C]. */
export function tokenCosine(a: Tensor, b: Tensor): { dots: Tensor; distance: Tensor } {
  const [dots, distance] = apply(tokenCosineOperation, [a, b], null);
  return { dots: dots!, distance: distance! };
}

/** 1 - cos from (a.b, |a|^2, |b|^2): [.., 3] to [..]. */
export function cosineDistance(dots: Tensor): Tensor {
  return apply(cosineDistanceOperation, [dots], null)[0]!;
}

/** 1 - cos of each token of a, b [B, N, C]: [B, N]. */
export function cosineMap(a: Tensor, b: Tensor): Tensor {
  return tokenCosine(a, b).distance;
}

/** 1 - cos of each image as one vector over all tokens and channels, [B], from the tokens' dot products [B, N, 3]. */
export function vectorCosine(dots: Tensor): Tensor {
  return cosineDistance(sumTokens(dots));
}

/** Mean over the batch of 1 - cos(vec en_b, vec de_b), [1]; en, de [B, N, C]. */
export function vectorCosineLoss(en: Tensor, de: Tensor): Tensor {
  return mean(vectorCosine(tokenCosine(en, de).dots));
}
