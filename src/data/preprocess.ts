/**
 * From a decoded image to the encoder's input, as the reference does it: antialiased resize without regard to the
 * aspect ratio, centre crop, [0, 1], then (x - mean) / std per channel, in float32. Masks take the same way and end as
 * zeros and ones at the anomaly map's size.
 */
import { UsageError } from '../errors.ts';
import { checkRasterImage, type RasterImage } from './image.ts';
import { resizeAntialiased, resizeNearest } from './resample.ts';

/** A square's side, or both sides. */
export type Size = number | { readonly width: number; readonly height: number };

export interface PreprocessOptions {
  /** Size after the resize, before the crop. */
  readonly resize: Size;
  /** Size of the centre crop; at most `resize`. */
  readonly crop: Size;
  /** Per-channel mean and standard deviation of the pixels in [0, 1], RGB order; ImageNet's by default. */
  readonly mean?: readonly [number, number, number];
  readonly std?: readonly [number, number, number];
}

export const IMAGENET_MEAN = [0.485, 0.456, 0.406] as const;
export const IMAGENET_STD = [0.229, 0.224, 0.225] as const;

/** @throws UsageError that begins with `name` */
export function toSize(size: Size, name = 'A size'): { width: number; height: number } {
  const { width, height } = typeof size === 'object' && size ? size : { width: size, height: size };
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw new UsageError(`${name} must be a positive integer, or such a width and height; got ${width} x ${height}.`);
  }
  return { width, height };
}

/** 602 x 252: width, then height. */
export function sizeInWords(size: Size, between = ' x '): string {
  const { width, height } = toSize(size);
  return `${width}${between}${height}`;
}

/**
 * The crop's left and top edge in the resized image. Halves go to the even neighbour, as Python's `round` takes them in
 * torchvision's CenterCrop.
 */
export function cropOffset(resize: Size, crop: Size): { x: number; y: number } {
  const from = toSize(resize);
  const to = toSize(crop);
  if (to.width > from.width || to.height > from.height) {
    throw new UsageError(
      `The crop (${to.width} x ${to.height}) is larger than the resized image (${from.width} x ${from.height}): lower the crop or raise the resize.`,
    );
  }
  return { x: halfToEven(from.width - to.width), y: halfToEven(from.height - to.height) };
}

/** n/2, rounded to the even neighbour where n is odd. */
function halfToEven(n: number): number {
  const below = Math.floor(n / 2);
  return n % 2 === 1 && below % 2 === 1 ? below + 1 : below;
}

/** The crop of the resized image, RGB: [height, width, 3] bytes. This is what the float values of {@link preprocess} come from. */
export function resizeAndCrop(image: RasterImage, { resize, crop }: Pick<PreprocessOptions, 'resize' | 'crop'>): RasterImage {
  const from = toSize(resize);
  const to = toSize(crop);
  const { x, y } = cropOffset(resize, crop);
  // A grey image stays grey until after the resize: its three channels would come out equal.
  const resized = resizeAntialiased(withoutAlpha(image), from.width, from.height);
  const data = new Uint8Array(to.width * to.height * 3);
  for (let row = 0, target = 0; row < to.height; row++) {
    for (let column = 0; column < to.width; column++) {
      const pixel = ((y + row) * from.width + x + column) * resized.channels;
      for (let c = 0; c < 3; c++) data[target++] = resized.data[resized.channels === 1 ? pixel : pixel + c]!;
    }
  }
  return { width: to.width, height: to.height, channels: 3, data };
}

/** The encoder's input [3, height, width], float32, in the size of the crop. Grey is repeated to RGB, alpha dropped. */
export function preprocess(image: RasterImage, options: PreprocessOptions): Float32Array {
  const { mean = IMAGENET_MEAN, std = IMAGENET_STD } = options;
  const { data, width, height } = resizeAndCrop(image, options);
  const result = new Float32Array(3 * width * height);
  for (let c = 0; c < 3; c++) {
    const channelMean = Math.fround(mean[c]!);
    const channelStd = Math.fround(std[c]!);
    // Rounded to float32 after every step, as the reference's tensors are.
    const normalised = Float32Array.from({ length: 256 }, (_, byte) => Math.fround(Math.fround(byte / 255) - channelMean) / channelStd);
    for (let i = 0; i < width * height; i++) result[c * width * height + i] = normalised[data[i * 3 + c]!]!;
  }
  return result;
}

/**
 * Ground truth on the anomaly map's grid: resized and cropped like the image, nearest neighbour to `mapSize`, then
 * > 0.5. Returns zeros and ones, row-major.
 */
export function preprocessMask(
  mask: RasterImage,
  { resize, crop, mapSize = 256 }: Pick<PreprocessOptions, 'resize' | 'crop'> & { readonly mapSize?: Size },
): Uint8Array {
  const from = toSize(resize);
  const to = toSize(crop);
  const out = toSize(mapSize);
  const { x, y } = cropOffset(resize, crop);
  const resized = resizeAntialiased(toGrey(mask), from.width, from.height);
  const cropped = new Uint8Array(to.width * to.height);
  for (let row = 0; row < to.height; row++) {
    const start = (y + row) * from.width + x;
    cropped.set(resized.data.subarray(start, start + to.width), row * to.width);
  }
  return resizeNearest(cropped, to.width, to.height, out.width, out.height).map((value) => (value > 127.5 ? 1 : 0));
}

/** RGBA becomes RGB; others stay as they are. */
export function withoutAlpha(image: RasterImage): RasterImage {
  checkRasterImage(image);
  if (image.channels !== 4) return image;
  const { width, height } = image;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, target = 0; i < image.data.length; i += 4) {
    for (let c = 0; c < 3; c++) data[target++] = image.data[i + c]!;
  }
  return { width, height, channels: 3, data };
}

/** Luma (ITU-R 601) in Pillow's fixed point; alpha is dropped. */
export function toGrey(image: RasterImage): RasterImage {
  checkRasterImage(image);
  const { width, height, channels, data } = image;
  if (channels === 1) return image;
  const grey = Uint8Array.from({ length: width * height }, (_, i) => {
    const pixel = i * channels;
    return (data[pixel]! * 19595 + data[pixel + 1]! * 38470 + data[pixel + 2]! * 7471 + 0x8000) >> 16;
  });
  return { width, height, channels: 1, data: grey };
}
