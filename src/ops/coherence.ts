/**
 * The distance of every token to the prototypes of its image, 1 - cos(x_n, P_m), and to the nearest of them. Their mean
 * is INP-Former's coherence loss: Lc = mean over tokens of min_m (1 - cos(x_n, P_m)).
 */
import {
  chunksOf, nearestKernel, normKernel, prototypeDistanceKernel, prototypeGradientKernel, prototypePartialKernel,
  prototypeRadialKernel, tokenGradientKernel, type CoherenceSize,
} from '../../shaders/coherence.wgsl.ts';
import { normFloor } from '../../shaders/cosine.wgsl.ts';
import { mapKernel } from '../../shaders/reduction.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Target } from '../gpu/target.ts';
import type { Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';

/** (x [B, N, C], P [B, M, C]) -> distance [B, N, M], |x| [B, N], |P| [B, M]; the norms (floored) are kept for the gradient */
export const prototypeDistanceOperation: Operation<null> = {
  name: 'prototypeDistance',
  outputs([x, prototypes]) {
    const [batch, tokens, channels] = x!.shape;
    const [b, m, c] = prototypes!.shape;
    if (x!.shape.length !== 3 || prototypes!.shape.length !== 3 || batch !== b || channels !== c) {
      throw new UsageError(`prototypeDistance: expected x [B, N, C] and prototypes [B, M, C], got [${x!.shape.join(', ')}] and [${prototypes!.shape.join(', ')}].`);
    }
    return [
      { shape: [batch!, tokens!, m!], dtype: 'f32' },
      { shape: [batch!, tokens!], dtype: 'f32' },
      { shape: [batch!, m!], dtype: 'f32' },
    ];
  },
  kernels({ inputs: [x, prototypes], target, read, write, readBack }) {
    const size = sizes(x!, prototypes!, target);
    const rows = size.batch * size.prototypes;
    const all = size.batch * size.tokens;
    const norms = normKernel({ label: `norm [${prototypes!.shape.join(', ')}]`, rows, channels: size.channels, target });
    const distances = prototypeDistanceKernel({ ...size, label: `prototypeDistance ${size.label}` });
    return [
      { kernel: norms.source, workgroups: norms.workgroups, bindings: [read(1), write(2)], flops: 2 * rows * size.channels, bytes: 4 * rows * (size.channels + 1) },
      {
        kernel: distances.source, workgroups: distances.workgroups,
        bindings: [read(0), read(1), readBack(2), write(0), write(1)],
        flops: 2 * all * size.channels * (size.prototypes + 1),
        bytes: 4 * ((all + rows) * (size.channels + 1) + all * size.prototypes),
      },
    ];
  },
  gradient({ inputs: [x, prototypes], outputs: [distance, tokenNorm, prototypeNorm], outputGradients: [g], needs }) {
    if (!g) return [undefined, undefined];
    const inputs = [g, distance!, tokenNorm!, prototypeNorm!, x!, prototypes!];
    return [
      needs[0] ? apply(prototypeDistanceTokenGradientOperation, inputs, null)[0]! : undefined,
      needs[1] ? apply(prototypeDistancePrototypeGradientOperation, inputs, null)[0]! : undefined,
    ];
  },
  reference([x, p], { inputs: [xSpec, pSpec] }) {
    const { batch, tokens, prototypes, channels } = extents(xSpec!, pSpec!);
    const tokenNorm = norms(x!, channels);
    const prototypeNorm = norms(p!, channels);
    const distance = new Float64Array(batch * tokens * prototypes);
    distance.forEach((_, i) => {
      const token = Math.floor(i / prototypes);
      const row = Math.floor(token / tokens) * prototypes + (i % prototypes);
      let dot = 0;
      for (let c = 0; c < channels; c++) dot += x![token * channels + c]! * p![row * channels + c]!;
      distance[i] = Math.max(0, 1 - dot / (tokenNorm[token]! * prototypeNorm[row]!));
    });
    return [distance, tokenNorm, prototypeNorm];
  },
};

/** (g, distance [B, N, M], |x|, |P|, x, P) -> gradient by x */
export const prototypeDistanceTokenGradientOperation: Operation<null> = {
  name: 'prototypeDistanceTokenGradient',
  outputs: ([, , , , x]) => [{ shape: x!.shape, dtype: 'f32' }],
  kernels({ inputs: [, , , , x, prototypes], target, read, write }) {
    const size = sizes(x!, prototypes!, target);
    const { source, workgroups } = tokenGradientKernel({ ...size, label: `prototypeDistanceTokenGradient ${size.label}` });
    const all = size.batch * size.tokens;
    const rows = size.batch * size.prototypes;
    return [{
      kernel: source, workgroups,
      bindings: [read(0), read(1), read(2), read(3), read(4), read(5), write(0)],
      flops: all * size.channels * (2 * size.prototypes + 3),
      bytes: 4 * (all * (2 * size.channels + 2 * size.prototypes + 1) + rows * (size.channels + 1)),
    }];
  },
  reference([g, distance, tokenNorm, prototypeNorm, x, p], { inputs: [, , , , xSpec, pSpec] }) {
    const { tokens, prototypes, channels } = extents(xSpec!, pSpec!);
    return [x!.map((value, i) => {
      const token = Math.floor(i / channels);
      const norm = tokenNorm![token]!;
      let gradient = 0;
      for (let m = 0; m < prototypes; m++) {
        const row = Math.floor(token / tokens) * prototypes + m;
        const at = token * prototypes + m;
        gradient -= (g![at]! * p![row * channels + (i % channels)]!) / (norm * prototypeNorm![row]!);
        if (norm > normFloor) gradient += (g![at]! * (1 - distance![at]!) * value) / norm ** 2;
      }
      return gradient;
    })];
  },
};

/** (g, distance [B, N, M], |x|, |P|, x, P) -> gradient by P */
export const prototypeDistancePrototypeGradientOperation: Operation<null> = {
  name: 'prototypeDistancePrototypeGradient',
  outputs: ([, , , , , prototypes]) => [{ shape: prototypes!.shape, dtype: 'f32' }],
  kernels({ inputs: [, , , , x, prototypes], target, read, write, scratch }) {
    const size = sizes(x!, prototypes!, target);
    const all = size.batch * size.tokens;
    const rows = size.batch * size.prototypes;
    const partialSize = rows * chunksOf(size.tokens) * size.channels;
    const radial = scratch(4 * rows);
    const partial = scratch(4 * partialSize);
    const label = (part: string) => ({ ...size, label: `prototypeDistancePrototypeGradient ${part} ${size.label}` });
    const radialKernel = prototypeRadialKernel(label('radial'));
    const partialKernel = prototypePartialKernel(label('partial'));
    const lastKernel = prototypeGradientKernel(label('sum'));
    return [
      {
        kernel: radialKernel.source, workgroups: radialKernel.workgroups, bindings: [read(0), read(1), radial.write],
        flops: 3 * all * size.prototypes, bytes: 4 * (2 * all * size.prototypes + rows),
      },
      {
        kernel: partialKernel.source, workgroups: partialKernel.workgroups, bindings: [read(0), read(2), read(4), partial.write],
        flops: all * size.channels * (2 * size.prototypes + 1), bytes: 4 * (all * (size.prototypes + 1 + size.channels) + partialSize),
      },
      {
        kernel: lastKernel.source, workgroups: lastKernel.workgroups, bindings: [partial.read, radial.read, read(3), read(5), write(0)],
        flops: partialSize + 3 * rows * size.channels, bytes: 4 * (partialSize + 2 * rows * (size.channels + 1)),
      },
    ];
  },
  reference([g, distance, tokenNorm, prototypeNorm, x, p], { inputs: [, , , , xSpec, pSpec] }) {
    const { tokens, prototypes, channels } = extents(xSpec!, pSpec!);
    return [p!.map((value, i) => {
      const row = Math.floor(i / channels);
      const norm = prototypeNorm![row]!;
      let gradient = 0;
      for (let n = 0; n < tokens; n++) {
        const token = Math.floor(row / prototypes) * tokens + n;
        const at = token * prototypes + (row % prototypes);
        gradient -= (g![at]! * x![token * channels + (i % channels)]!) / (tokenNorm![token]! * norm);
        if (norm > normFloor) gradient += (g![at]! * (1 - distance![at]!) * value) / norm ** 2;
      }
      return gradient;
    })];
  },
};

/** x [.., M] -> smallest [..] and its index [..] (u32), the first on ties */
export const nearestOperation: Operation<null> = {
  name: 'nearest',
  outputs([x]) {
    if (x!.shape.length < 2) throw new UsageError(`nearest: expected [.., M], got [${x!.shape.join(', ')}].`);
    const shape = x!.shape.slice(0, -1);
    return [{ shape, dtype: 'f32' }, { shape, dtype: 'u32' }];
  },
  kernels({ inputs: [x], outputs: [y], target, read, write }) {
    const rows = sizeOf(y!.shape);
    const columns = x!.shape.at(-1)!;
    const { source, workgroups } = nearestKernel({ label: `nearest [${x!.shape.join(', ')}]`, rows, columns, target });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0), write(1)], flops: rows * columns, bytes: 4 * rows * (columns + 2) }];
  },
  gradient({ inputs: [x], outputs: [, index], outputGradients: [g] }) {
    return [g ? apply(nearestGradientOperation, [g, index!], { columns: x!.shape.at(-1)! })[0]! : undefined];
  },
  reference([x], { inputs: [spec], outputs: [y] }) {
    const columns = spec!.shape.at(-1)!;
    const rows = Array.from({ length: sizeOf(y!.shape) }, (_, i) => x!.subarray(i * columns, (i + 1) * columns));
    const index = Float64Array.from(rows, (row) => row.indexOf(Math.min(...row)));
    return [Float64Array.from(rows, (row, i) => row[index[i]!]!), index];
  },
};

/** (g [..], index [..]) -> [.., M]: g where it came from, 0 elsewhere */
export const nearestGradientOperation: Operation<{ columns: number }> = {
  name: 'nearestGradient',
  outputs: ([g], { columns }) => [{ shape: [...g!.shape, columns], dtype: 'f32' }],
  kernels({ inputs: [g], outputs: [y], attributes: { columns }, target, read, write }) {
    const count = sizeOf(y!.shape);
    const { source, workgroups } = mapKernel({
      label: `nearestGradient [${y!.shape.join(', ')}]`, count, inputs: ['f32', 'u32'], target,
      value: `select(0.0f, x0[i / ${columns}u], x1[i / ${columns}u] == i % ${columns}u)`,
    });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: 0, bytes: 4 * (count + 2 * sizeOf(g!.shape)) }];
  },
  reference: ([g, index], { outputs: [y], attributes: { columns } }) => [Float64Array.from({ length: sizeOf(y!.shape) }, (_, i) => {
    const row = Math.floor(i / columns);
    return index![row] === i % columns ? g![row]! : 0;
  })],
};

function extents(x: TensorSpec, p: TensorSpec): { batch: number; tokens: number; prototypes: number; channels: number } {
  return { batch: x.shape[0]!, tokens: x.shape[1]!, prototypes: p.shape[1]!, channels: x.shape[2]! };
}

function sizes(x: TensorSpec, p: TensorSpec, target: Target): CoherenceSize {
  return { ...extents(x, p), label: `[${x.shape.join(', ')}] x ${p.shape[1]}`, target };
}

function norms(x: ReferenceArray, channels: number): ReferenceArray {
  return Float64Array.from({ length: x.length / channels }, (_, row) =>
    Math.max(normFloor, Math.sqrt(x.subarray(row * channels, (row + 1) * channels).reduce((sum, v) => sum + v * v, 0))));
}

/** 1 - cos(x_n, P_m) for x [B, N, C], prototypes [B, M, C]: [B, N, M]. */
export function coherenceAll(x: Tensor, prototypes: Tensor): Tensor {
  return apply(prototypeDistanceOperation, [x, prototypes], null)[0]!;
}

/** Smallest value along the last dimension, [..], and its index [..] (u32; the first on ties). */
export function nearest(x: Tensor): { distance: Tensor; index: Tensor } {
  const [distance, index] = apply(nearestOperation, [x], null);
  return { distance: distance!, index: index! };
}

/**
 * Cosine distance of each token to the nearest prototype of its image; `mean(distance)` is the coherence loss Lc.
 * @param x [B, N, C] @param prototypes [B, M, C]
 * @returns distance [B, N], index [B, N] (u32; the first on ties), all [B, N, M]
 */
export function coherence(x: Tensor, prototypes: Tensor): { distance: Tensor; index: Tensor; all: Tensor } {
  const all = coherenceAll(x, prototypes);
  return { ...nearest(all), all };
}
