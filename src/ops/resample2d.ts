/**
 * Separable resampling of an image-like tensor: y[i] = sum_t weight[t, i] x[index[t, i]] along the height, then along
 * the width (or the other way round, whichever leaves less in between). The weights come as constants from
 * {@link resampleTaps}; the gradient is the same operation with the transposed table.
 */
import { resampleKernel } from '../../shaders/resample.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, constant, sizeOf, type Shape, type Tensor } from '../graph/tensor.ts';
import { isIdentity, resampleTaps, transposeTaps, type ResampleKind, type TapTable } from './resample-taps.ts';

interface ResampleAttributes {
  readonly axis: number;
  readonly taps: TapTable;
}

/** Elements before, along and after the resampled axis. */
function split(shape: Shape, axis: number): { outer: number; inner: number } {
  return { outer: sizeOf(shape.slice(0, axis)), inner: sizeOf(shape.slice(axis + 1)) };
}

export const resampleOperation: Operation<ResampleAttributes> = {
  name: 'resample',
  outputs([x], { axis, taps }) {
    if (x!.shape[axis] !== taps.inputSize) {
      throw new UsageError(`resample: axis ${axis} of [${x!.shape.join(', ')}] is not ${taps.inputSize} long, as its table is.`);
    }
    return [{ shape: x!.shape.with(axis, taps.outputSize), dtype: 'f32' }];
  },
  kernels({ inputs: [x], outputs: [y], attributes: { axis, taps }, target, read, write }) {
    const { outer, inner } = split(x!.shape, axis);
    const { source, workgroups } = resampleKernel({
      label: `resample [${x!.shape.join(', ')}] to [${y!.shape.join(', ')}]`, target,
      outer, inner, inputSize: taps.inputSize, outputSize: taps.outputSize, taps: taps.width,
    });
    const count = sizeOf(y!.shape);
    return [{
      kernel: source, workgroups,
      bindings: [read(0), read(1), read(2), write(0)],
      flops: 2 * count * taps.width,
      bytes: 4 * (sizeOf(x!.shape) + 2 * taps.index.length + count),
    }];
  },
  gradient: ({ outputGradients: [g], attributes: { axis, taps } }) => [resampleAxis(g!, axis, transposeTaps(taps)), undefined, undefined],
  reference([x], { inputs: [spec], attributes: { axis, taps } }) {
    const { inputSize, outputSize, width, index, weight } = taps;
    const { outer, inner } = split(spec!.shape, axis);
    const y = new Float64Array(outer * outputSize * inner);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < outputSize; i++) {
        for (let c = 0; c < inner; c++) {
          let sum = 0;
          for (let t = 0; t < width; t++) {
            const at = t * outputSize + i;
            sum += weight[at]! * x![(o * inputSize + index[at]!) * inner + c]!;
          }
          y[(o * outputSize + i) * inner + c] = sum;
        }
      }
    }
    return [y];
  },
};

function resampleAxis(x: Tensor, axis: number, taps: TapTable): Tensor {
  const shape = [taps.width, taps.outputSize];
  const index = constant('resample.index', shape, taps.index);
  const weight = constant('resample.weight', shape, Float32Array.from(taps.weight));
  return apply(resampleOperation, [x, index, weight], { axis, taps })[0]!;
}

export interface Resample2dOptions {
  readonly outHeight: number;
  readonly outWidth: number;
  readonly kind: ResampleKind;
  /** Of `bicubic` alone: added to the output size in the scale; default 0.1, as DINOv2 and INP-Former have it. */
  readonly offset?: number;
  /** x is [B, H, W, C] instead of [.., H, W]. */
  readonly channelsLast?: boolean;
}

/**
 * x [.., H, W] to [.., outHeight, outWidth], or x [B, H, W, C] to [B, outHeight, outWidth, C] with `channelsLast`.
 * Where neither size changes x is returned as it is (the bicubic offset too then counts for nothing, as in DINOv2).
 * @throws UsageError for sizes that are no positive integers, or an x of too few dimensions
 */
export function resample2d(x: Tensor, options: Resample2dOptions): Tensor {
  const { outHeight, outWidth, kind, channelsLast = false, offset = kind === 'bicubic' ? 0.1 : 0 } = options;
  const vertical = channelsLast ? 1 : x.shape.length - 2;
  const horizontal = vertical + 1;
  if (channelsLast ? x.shape.length !== 4 : vertical < 0) {
    throw new UsageError(`resample2d: x has shape [${x.shape.join(', ')}], expected ${channelsLast ? '[B, H, W, C]' : '[.., H, W]'}.`);
  }
  const height = x.shape[vertical]!;
  const width = x.shape[horizontal]!;
  if (height === outHeight && width === outWidth) return x;
  return resampleBy(x, { vertical: resampleTaps(kind, height, outHeight, offset), horizontal: resampleTaps(kind, width, outWidth, offset) }, vertical);
}

/** As {@link resample2d}, by tables of one's own. @param axis of the height; by default the last but one */
export function resampleBy(x: Tensor, { vertical, horizontal }: { readonly vertical: TapTable; readonly horizontal: TapTable }, axis = x.shape.length - 2): Tensor {
  const passes = [{ axis, taps: vertical }, { axis: axis + 1, taps: horizontal }];
  if (vertical.outputSize * horizontal.inputSize > vertical.inputSize * horizontal.outputSize) passes.reverse();
  return passes.reduce((y, { axis: along, taps }) => (isIdentity(taps) ? y : resampleAxis(y, along, taps)), x);
}
