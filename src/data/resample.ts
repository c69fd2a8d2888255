/**
 * Pillow's antialiased bilinear resize of 8-bit images, equal to the byte: it is the reference's first step, and a
 * resize without its low-pass filter changes features enough to move scores. For output i of m from n inputs:
 *
 *   scale = n/m   f = max(scale, 1)   c = (i + 1/2) scale   w_j = max(0, 1 - |(j - c + 1/2) / f|) / sum
 *
 * in 22-bit fixed point, one pass along rows and one along columns, each rounded to 8 bits and left out where the size
 * does not change. Which comes first is told by {@link columnsFirst}. The same tables feed the GPU kernel.
 */
import { UsageError } from '../errors.ts';
import { checkRasterImage, type RasterImage } from './image.ts';

/** Bits behind the point of the weights: 8 bits of pixel and 22 of weight leave two of 32 for sign and carry. */
export const RESAMPLE_PRECISION_BITS = 22;

export interface AntialiasedCoefficients {
  /** Per output: the first input pixel that counts, and how many do. */
  readonly first: Int32Array;
  readonly count: Int32Array;
  /** `outputSize * maxCount` fixed-point weights; those of output i start at `i * maxCount`, the rest are 0. */
  readonly weights: Int32Array;
  readonly maxCount: number;
}

/** The weights with which `inputSize` pixels of a row (or column) make `outputSize`. */
export function antialiasedCoefficients(inputSize: number, outputSize: number): AntialiasedCoefficients {
  for (const size of [inputSize, outputSize]) {
    if (!Number.isInteger(size) || size < 1) throw new UsageError(`Resize: sizes must be positive integers, got ${inputSize} to ${outputSize}.`);
  }
  const scale = inputSize / outputSize;
  const support = Math.max(scale, 1);
  const maxCount = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outputSize);
  const count = new Int32Array(outputSize);
  const weights = new Int32Array(outputSize * maxCount);
  const exact = new Float64Array(maxCount);
  // Pillow multiplies by the reciprocal; the last bit of a weight depends on it.
  const reciprocal = 1 / support;
  for (let i = 0; i < outputSize; i++) {
    const centre = (i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(centre - support + 0.5));
    const high = Math.min(inputSize, Math.trunc(centre + support + 0.5));
    let sum = 0;
    for (let j = low; j < high; j++) {
      const weight = Math.max(0, 1 - Math.abs((j - centre + 0.5) * reciprocal));
      exact[j - low] = weight;
      sum += weight;
    }
    first[i] = low;
    count[i] = high - low;
    for (let j = 0; j < high - low; j++) {
      weights[i * maxCount + j] = Math.trunc(exact[j]! / sum * 2 ** RESAMPLE_PRECISION_BITS + 0.5);
    }
  }
  return { first, count, weights, maxCount };
}

/**
 * Whether the pass along columns comes first. Pillow 13 takes the order that is faster where the height shrinks much more
 * than the width; the rounding between the passes makes it show, by one level in a fifth of the pixels.
 */
export function columnsFirst(from: { width: number; height: number }, to: { width: number; height: number }): boolean {
  return from.height > to.height && from.height - to.height > 2 * (from.width - to.width);
}

/** Resizes to `width` x `height`, each channel by itself (so drop an alpha channel before). Aspect ratio is the caller's matter. */
export function resizeAntialiased(image: RasterImage, width: number, height: number): RasterImage {
  checkRasterImage(image);
  const { channels } = image;
  let data = image.data;
  const alongRows = (rows: number) => {
    if (width !== image.width) data = resampleAxis(data, { outer: rows, input: image.width, output: width, inner: channels });
  };
  const alongColumns = (columns: number) => {
    if (height !== image.height) data = resampleAxis(data, { outer: 1, input: image.height, output: height, inner: columns * channels });
  };
  if (columnsFirst(image, { width, height })) {
    alongColumns(image.width);
    alongRows(height);
  } else {
    alongRows(image.height);
    alongColumns(width);
  }
  return { width, height, channels, data: data === image.data ? new Uint8Array(data) : data };
}

/** Resamples the middle axis of an [outer, input, inner] array of bytes. */
function resampleAxis(
  source: Uint8Array | Uint8ClampedArray,
  { outer, input, output, inner }: { outer: number; input: number; output: number; inner: number },
): Uint8Array {
  const { first, count, weights, maxCount } = antialiasedCoefficients(input, output);
  const result = new Uint8Array(outer * output * inner);
  const sums = new Int32Array(inner);
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < output; i++) {
      sums.fill(1 << (RESAMPLE_PRECISION_BITS - 1)); // one half, to round
      for (let tap = 0; tap < count[i]!; tap++) {
        const weight = weights[i * maxCount + tap]!;
        const row = (o * input + first[i]! + tap) * inner;
        for (let k = 0; k < inner; k++) sums[k]! += weight * source[row + k]!;
      }
      const target = (o * output + i) * inner;
      for (let k = 0; k < inner; k++) result[target + k] = Math.min(255, sums[k]! >> RESAMPLE_PRECISION_BITS);
    }
  }
  return result;
}

/** Nearest neighbour: output i takes source floor(i n / m), on both axes. Bytes in, bytes out, one channel. */
export function resizeNearest(
  source: Uint8Array | Uint8ClampedArray,
  sourceWidth: number,
  sourceHeight: number,
  width: number,
  height: number,
): Uint8Array {
  if (source.length !== sourceWidth * sourceHeight) {
    throw new UsageError(`resizeNearest: ${sourceWidth} x ${sourceHeight} has ${sourceWidth * sourceHeight} pixels, got ${source.length}.`);
  }
  const result = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(y * sourceHeight / height) * sourceWidth;
    for (let x = 0; x < width; x++) result[y * width + x] = source[row + Math.floor(x * sourceWidth / width)]!;
  }
  return result;
}
