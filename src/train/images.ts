/** Reading the images of a training: one that can't be read fails it, or is left out and noted; and what sizes they have. */
import { checkRasterImage, type ImageSource, type RasterImage } from '../data/image.ts';
import type { Size } from '../data/preprocess.ts';
import { InpFormerError, InputError } from '../errors.ts';
import type { ImageSize } from '../model/config.ts';

export interface SkippedImage {
  readonly name: string;
  readonly reason: string;
}

/** Reads an image; undefined (and noted) where it can't be read and that is allowed. */
export async function readImage(source: ImageSource, skipUnreadable: boolean, skipped: SkippedImage[]): Promise<RasterImage | undefined> {
  try {
    const image = await source.load();
    checkRasterImage(image, source.name);
    return image;
  } catch (error) {
    if (!skipUnreadable || !(error instanceof InpFormerError)) throw error;
    skipped.push({ name: source.name, reason: error.message });
    return undefined;
  }
}

export function noneReadable(images: readonly ImageSource[], skipped: readonly SkippedImage[]): InputError {
  return new InputError(`None of the ${images.length} images can be read. ${skipped[0]?.reason ?? ''}`, { code: 'no-images' });
}

/** As metadata hold it: a square by its side. */
export function compactSize({ width, height }: ImageSize): Size {
  return width === height ? width : { width, height };
}

/** The size of median area. */
export function medianSize(sizes: readonly ImageSize[]): Size {
  const sorted = [...sizes].sort((a, b) => a.width * a.height - b.width * b.height || a.width - b.width);
  return compactSize(sorted[sorted.length >> 1]!);
}
