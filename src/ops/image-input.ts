/**
 * From decoded pixels to the encoder's input on the GPU: Pillow's antialiased resize, equal to the byte, then centre
 * crop and (v / 255 - mean) / std. Size and weight tables of the resize are inputs, so one compiled plan serves every
 * image up to its capacity.
 */
import { normalizeCropKernel, resizePassKernel } from '../../shaders/image-input.wgsl.ts';
import { checkRasterImage, type RasterImage } from '../data/image.ts';
import { cropOffset, IMAGENET_MEAN, IMAGENET_STD } from '../data/preprocess.ts';
import { antialiasedCoefficients, columnsFirst, RESAMPLE_PRECISION_BITS } from '../data/resample.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, constant, input, sizeOf, type Tensor, type TensorData } from '../graph/tensor.ts';

interface ImageSize {
  readonly width: number;
  readonly height: number;
}

/** Up to which source a resize is compiled. */
export interface ResizeCapacity {
  readonly pixels: number;
  /** Source rows. */
  readonly rows: number;
  /** Source pixels that one output pixel may depend on, along a row and along a column. */
  readonly horizontalTaps: number;
  readonly verticalTaps: number;
}

/** The capacity for a source: the powers of two that hold it, so that sources of similar size share a plan. */
export function resizeCapacity(source: ImageSize, output: ImageSize): ResizeCapacity {
  const powerOfTwo = (n: number) => 2 ** Math.ceil(Math.log2(n));
  // As many as antialiasedCoefficients gives to the largest size of the class.
  const taps = (from: number, to: number) => 2 * Math.max(1, Math.ceil(powerOfTwo(from) / to)) + 1;
  return {
    pixels: powerOfTwo(source.width * source.height),
    rows: powerOfTwo(source.height),
    horizontalTaps: taps(source.width, output.width),
    verticalTaps: taps(source.height, output.height),
  };
}

/** What a resize reads. */
export interface ResizeTensors {
  /** u32 [capacity.pixels]: RGBA, 8 bits each, R lowest; row by row, as wide as the source is. */
  readonly pixels: Tensor;
  /** i32 [2 + horizontalTaps, width]: first source pixel, how many count, and their fixed-point weights, by output column. */
  readonly horizontal: Tensor;
  /** i32 [2 + verticalTaps, height], likewise by output row. */
  readonly vertical: Tensor;
  /** u32 [4]: source width, source height, 1 where the pass along columns comes first, 0. */
  readonly size: Tensor;
}

/** Graph inputs `${prefix}.pixels`, `.horizontal`, `.vertical` and `.size`, which {@link resizeInputs} fills. */
export function resizeInputTensors(capacity: ResizeCapacity, output: ImageSize, prefix = 'image'): ResizeTensors {
  return {
    pixels: input(`${prefix}.pixels`, [capacity.pixels], 'u32'),
    horizontal: input(`${prefix}.horizontal`, [2 + capacity.horizontalTaps, output.width], 'i32'),
    vertical: input(`${prefix}.vertical`, [2 + capacity.verticalTaps, output.height], 'i32'),
    size: input(`${prefix}.size`, [4], 'u32'),
  };
}

/**
 * The values of {@link resizeInputTensors} for an image. Grey is repeated, alpha dropped.
 * @throws UsageError for an image above the capacity
 */
export function resizeInputs(image: RasterImage, capacity: ResizeCapacity, output: ImageSize, prefix = 'image'): Record<string, TensorData> {
  checkRasterImage(image);
  const { width, height } = image;
  const horizontal = axisTable(width, output.width, capacity.horizontalTaps);
  const vertical = axisTable(height, output.height, capacity.verticalTaps);
  if (width * height > capacity.pixels || height > capacity.rows || !horizontal || !vertical) {
    throw new UsageError(
      `An image of ${width} x ${height} is above the capacity of this plan (${capacity.pixels} pixels, ${capacity.rows} rows, `
      + `${capacity.horizontalTaps} x ${capacity.verticalTaps} taps): compile one for resizeCapacity of the image.`,
    );
  }
  return {
    [`${prefix}.pixels`]: packPixels(image, capacity.pixels),
    [`${prefix}.horizontal`]: horizontal,
    [`${prefix}.vertical`]: vertical,
    [`${prefix}.size`]: Uint32Array.of(width, height, Number(columnsFirst(image, output)), 0),
  };
}

/** Tap-major, so that neighbouring invocations read neighbouring entries; undefined where the taps do not fit. */
function axisTable(from: number, to: number, taps: number): Int32Array | undefined {
  const { first, count, weights, maxCount } = antialiasedCoefficients(from, to);
  if (count.some((n) => n > taps)) return undefined;
  const table = new Int32Array((2 + taps) * to);
  table.set(first, 0);
  table.set(count, to);
  for (let i = 0; i < to; i++) {
    for (let t = 0; t < count[i]!; t++) table[(2 + t) * to + i] = weights[i * maxCount + t]!;
  }
  return table;
}

function packPixels({ channels, data, width, height }: RasterImage, capacity: number): Uint32Array {
  const packed = new Uint32Array(capacity);
  const [green, blue] = channels === 1 ? [0, 0] : [1, 2];
  for (let i = 0, at = 0; i < width * height; i++, at += channels) {
    packed[i] = (data[at]! | (data[at + green]! << 8) | (data[at + blue]! << 16) | 0xff000000) >>> 0;
  }
  return packed;
}

export const resizeAntialiasedOperation: Operation<ImageSize & { readonly rows: number }> = {
  name: 'resizeAntialiased',
  outputs([pixels, horizontal, vertical, size], { width, height }) {
    const fits = pixels!.dtype === 'u32' && size!.dtype === 'u32' && sizeOf(size!.shape) === 4
      && horizontal!.dtype === 'i32' && horizontal!.shape[1] === width && horizontal!.shape[0]! > 2
      && vertical!.dtype === 'i32' && vertical!.shape[1] === height && vertical!.shape[0]! > 2;
    if (!fits) throw new UsageError(`resizeAntialiased: the inputs are not those of resizeInputTensors for an output of ${width} x ${height}.`);
    return [{ shape: [width * height], dtype: 'u32' }];
  },
  kernels({ inputs: [pixels, horizontal, vertical], attributes: { width, height, rows }, target, read, write, scratch }) {
    // Columns come first only in sources less wide than width + rows / 2 (see columnsFirst).
    const capacity = Math.max(rows * width, Math.ceil(height * (width + rows / 2)));
    const between = scratch(4 * capacity);
    const pass = (first: boolean) => resizePassKernel({
      label: `resizeAntialiased to ${width} x ${height}, ${first ? 'first' : 'second'} pass`, first,
      horizontalTaps: horizontal!.shape[0]! - 2, verticalTaps: vertical!.shape[0]! - 2, width, height,
      capacity: first ? capacity : width * height, precisionBits: RESAMPLE_PRECISION_BITS, target,
    });
    const [first, second] = [pass(true), pass(false)];
    // As for rows first, the common case.
    const tapFlops = 6;
    return [
      {
        kernel: first.source, workgroups: first.workgroups, bindings: [read(0), read(1), read(2), read(3), between.write],
        flops: tapFlops * rows * sizeOf(horizontal!.shape), bytes: 4 * (sizeOf(pixels!.shape) + sizeOf(horizontal!.shape) + rows * width),
      },
      {
        kernel: second.source, workgroups: second.workgroups, bindings: [between.read, read(1), read(2), read(3), write(0)],
        flops: tapFlops * width * sizeOf(vertical!.shape), bytes: 4 * (rows * width + sizeOf(vertical!.shape) + width * height),
      },
    ];
  },
  reference([pixels, horizontal, vertical, size], { attributes: { width, height } }) {
    const [sourceWidth, sourceHeight, columnsAreFirst] = size as unknown as [number, number, number];
    const resampled = (table: Float64Array, outputs: number, i: number, pixel: (j: number) => number): number => {
      const [first, count] = [table[i]!, table[outputs + i]!];
      const channel = (shift: number): number => {
        let sum = 2 ** (RESAMPLE_PRECISION_BITS - 1);
        for (let t = 0; t < count; t++) sum += table[(2 + t) * outputs + i]! * ((pixel(first + t) >>> shift) & 255);
        return Math.min(255, Math.floor(sum / 2 ** RESAMPLE_PRECISION_BITS));
      };
      return channel(0) + 2 ** 8 * channel(8) + 2 ** 16 * channel(16) + 2 ** 24 * 255;
    };
    const alongRows = (source: Float64Array, inputWidth: number, rows: number): Float64Array => Float64Array.from({ length: rows * width }, (_, i) =>
      resampled(horizontal!, width, i % width, (x) => source[Math.floor(i / width) * inputWidth + x]!));
    const alongColumns = (source: Float64Array, columns: number): Float64Array => Float64Array.from({ length: height * columns }, (_, i) =>
      resampled(vertical!, height, Math.floor(i / columns), (y) => source[y * columns + (i % columns)]!));
    return [columnsAreFirst
      ? alongRows(alongColumns(pixels!, sourceWidth), sourceWidth, height)
      : alongColumns(alongRows(pixels!, sourceWidth, sourceHeight), width)];
  },
};

/**
 * Pillow's `resize(BILINEAR)`, byte for byte: a pass along rows and one along columns, in the order that {@link columnsFirst}
 * tells, each rounded to 8 bits (a pass that changes no size is the identity).
 * @param rows capacity of source rows
 * @returns u32 [height * width], packed as the pixels are, alpha 255
 */
export function resizeAntialiased({ pixels, horizontal, vertical, size }: ResizeTensors, { width, height, rows }: ImageSize & { readonly rows: number }): Tensor {
  return apply(resizeAntialiasedOperation, [pixels, horizontal, vertical, size], { width, height, rows })[0]!;
}

interface NormalizeCropAttributes extends ImageSize {
  readonly cropWidth: number;
  readonly cropHeight: number;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

/**
 * Inputs: the pixels, and a table [3, 256] of what each byte becomes in each channel. The table is computed on the
 * CPU, rounded after every step as the reference's f32 tensors are, because WGSL's division need not be exact.
 */
export const normalizeCropOperation: Operation<NormalizeCropAttributes> = {
  name: 'normalizeCrop',
  outputs([pixels], { width, height, cropWidth, cropHeight }) {
    if (pixels!.dtype !== 'u32' || sizeOf(pixels!.shape) !== width * height) {
      throw new UsageError(`normalizeCrop: pixels are ${pixels!.dtype} [${pixels!.shape.join(', ')}], expected u32 [${width * height}] for ${width} x ${height}.`);
    }
    return [{ shape: [1, 3, cropHeight, cropWidth], dtype: 'f32' }];
  },
  kernels({ outputs: [y], attributes: a, target, read, write }) {
    const { x, y: top } = cropOffset({ width: a.width, height: a.height }, { width: a.cropWidth, height: a.cropHeight });
    const { source, workgroups } = normalizeCropKernel({
      label: `normalizeCrop [${y!.shape.join(', ')}]`, width: a.width, left: x, top, cropWidth: a.cropWidth, cropHeight: a.cropHeight, target,
    });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: 0, bytes: 4 * (a.cropWidth * a.cropHeight * 4 + 768) }];
  },
  reference([pixels], { attributes: { width, height, cropWidth, cropHeight, mean, std } }) {
    const { x: left, y: top } = cropOffset({ width, height }, { width: cropWidth, height: cropHeight });
    const plane = cropWidth * cropHeight;
    return [Float64Array.from({ length: 3 * plane }, (_, i) => {
      const c = Math.floor(i / plane);
      const row = top + Math.floor((i % plane) / cropWidth);
      const byte = (pixels![row * width + left + (i % cropWidth)]! >>> (8 * c)) & 255;
      return (byte / 255 - mean[c]!) / std[c]!;
    })];
  },
};

/**
 * @param pixels u32 [height * width], as {@link resizeAntialiased} makes them
 * @param options sizes before and after the centre crop; mean and standard deviation of each channel in [0, 1], ImageNet's by default
 * @returns f32 [1, 3, cropHeight, cropWidth], the bits that `preprocess` computes on the CPU
 * @throws UsageError for a crop larger than the image
 */
export function normalizeCrop(
  pixels: Tensor,
  { width, height, cropWidth, cropHeight, mean = IMAGENET_MEAN, std = IMAGENET_STD }: Omit<NormalizeCropAttributes, 'mean' | 'std'> & Partial<NormalizeCropAttributes>,
): Tensor {
  cropOffset({ width, height }, { width: cropWidth, height: cropHeight });
  const table = Float32Array.from({ length: 3 * 256 }, (_, i) => {
    const c = i >> 8;
    return Math.fround(Math.fround((i & 255) / 255) - Math.fround(mean[c]!)) / Math.fround(std[c]!);
  });
  return apply(normalizeCropOperation, [pixels, constant('normalizeCrop.table', [3, 256], table)], { width, height, cropWidth, cropHeight, mean, std })[0]!;
}
