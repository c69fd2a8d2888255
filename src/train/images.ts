/** Reading the images of a training: one that can't be read fails it, or is left out and noted. */
import { checkRasterImage, type ImageSource, type RasterImage } from '../data/image.ts';
import { InpFormerError } from '../errors.ts';

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
