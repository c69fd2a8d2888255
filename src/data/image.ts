/**
 * The one image type inside the engine: decoded 8-bit pixels, row-major and interleaved. Files, canvases and
 * cameras are turned into it at the edges (node/, browser/), so that everything after decoding is shared.
 */
import { InputError } from '../errors.ts';

export interface RasterImage {
  readonly width: number;
  readonly height: number;
  /** 1 grey, 3 RGB, 4 RGBA (alpha is dropped, as the reference's `convert('RGB')` does). */
  readonly channels: 1 | 3 | 4;
  /** `width * height * channels` bytes. */
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** An image that is decoded when it is needed; `name` is what errors and reports call it. */
export interface ImageSource {
  readonly name: string;
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
