/**
 * The one image type inside the engine: decoded 8-bit pixels, row-major and interleaved. Files, canvases and
 * cameras are turned into it at the edges (node/, browser/), so that everything after decoding is shared.
 */
import { InputError } from '../errors.ts';

/** An augmentation, done on the GPU after the image was resized, cropped and normalised; see `warpImage`. */
export interface ImageView {
  /** The source of the output pixel at (x, y) from the centre is (a x + b y, c x + d y) from the centre. */
  readonly matrix: readonly [a: number, b: number, c: number, d: number];
  /** Added to the source, in halves of the width and of the height. */
  readonly shift?: readonly [x: number, y: number];
  /** Makes all channels the luma. */
  readonly grey?: boolean;
}

export interface RasterImage {
  readonly width: number;
  readonly height: number;
  /** 1 grey, 3 RGB, 4 RGBA (alpha is dropped, as the reference's `convert('RGB')` does). */
  readonly channels: 1 | 3 | 4;
  /** `width * height * channels` bytes. */
  readonly data: Uint8Array | Uint8ClampedArray;
  /** What the encoder sees of it, where it is not the image itself. */
  readonly view?: ImageView;
}

/** An image that is decoded when it is needed; `name` is what errors and reports call it. */
export interface ImageSource {
  readonly name: string;
  /** Which of several things it shows, where one model is to know them all: each gets a threshold, and shots, of its own. */
  readonly category?: string;
  load(): Promise<RasterImage>;
}

/** Throws an {@link InputError} unless sizes, channel count and byte count agree. */
export function checkRasterImage(image: RasterImage, name = 'image'): void {
  const { width, height, channels, data } = image;
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw new InputError(`${name}: width and height must be positive integers, got ${width} x ${height}.`, { file: name });
  }
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    throw new InputError(`${name}: an image has 1, 3 or 4 channels, got ${String(channels)}.`, { file: name });
  }
  if (data.length !== width * height * channels) {
    throw new InputError(
      `${name}: ${width} x ${height} x ${channels} needs ${width * height * channels} bytes, got ${data.length}.`,
      { file: name },
    );
  }
}

/**
 * An 8-bit image from floating-point pixels in [0, 1], rounded to the nearest of 255 steps.
 * @param pixels `width * height * channels` values, row-major and interleaved
 * @throws InputError for NaN or values outside [0, 1], naming the first such pixel
 */
export function rasterFromFloats(pixels: ArrayLike<number>, size: { width: number; height: number; channels: 1 | 3 | 4 }, name = 'image'): RasterImage {
  const data = new Uint8Array(pixels.length);
  for (let i = 0; i < data.length; i++) {
    const value = pixels[i]!;
    if (!(value >= 0 && value <= 1)) {
      const pixel = Math.floor(i / size.channels);
      throw new InputError(`${name}: the pixel at (${pixel % size.width}, ${Math.floor(pixel / size.width)}) has the value ${value}, expected a number from 0 to 1.`, { file: name });
    }
    data[i] = Math.round(value * 255);
  }
  const image = { ...size, data };
  checkRasterImage(image, name);
  return image;
}
