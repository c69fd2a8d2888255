/** Real defects as the synthesis takes them: in the size that the encoder sees, with the regions that can be cut out. */
import type { ImageSource, RasterImage } from '../data/image.ts';
import { preprocessMask, resizeAndCrop, toSize, type Size } from '../data/preprocess.ts';
import { pseudoAnomaly, type PseudoAnomaly, type RealDefect } from '../data/pseudo-anomaly.ts';
import { Random } from '../data/random.ts';
import { InputError } from '../errors.ts';
import { labelRegions } from '../evaluate/regions.ts';
import { readImage, type SkippedImage } from './images.ts';

/** A real defect: the image, and its mask, of the same size and not black where it is defective. */
export interface DefectSource {
  readonly image: ImageSource;
  readonly mask: ImageSource;
}

/** Sample `index` of a training, or of those to look at: which defect is made up on the normal image is the seed's and the index's to say. */
export function drawSample(
  normal: RasterImage, index: number, { seed, textures = [], defects }: { seed: number; textures?: readonly ImageSource[] | undefined; defects: readonly RealDefect[] },
): Promise<PseudoAnomaly> {
  return pseudoAnomaly(normal, { textures: textures.map((source) => () => source.load()), defects }, new Random(`${seed}/pseudo-anomaly ${index}`));
}

/**
 * @param options.skipped takes defects that can't be read, where that is allowed
 * @throws InputError for a mask of another size than its image, or one that marks nothing
 */
export async function readDefects(
  sources: readonly DefectSource[], { resize, crop, skipUnreadable = false, skipped = [] }: { resize: Size; crop: Size; skipUnreadable?: boolean; skipped?: SkippedImage[] },
): Promise<RealDefect[]> {
  const { width, height } = toSize(crop);
  const defects: RealDefect[] = [];
  for (const { image: imageSource, mask: maskSource } of sources) {
    const image = await readImage(imageSource, skipUnreadable, skipped);
    const mask = image && await readImage(maskSource, skipUnreadable, skipped);
    if (!image || !mask) continue;
    if (mask.width !== image.width || mask.height !== image.height) {
      throw new InputError(`${maskSource.name}: the mask is ${mask.width} x ${mask.height} pixels, its image ${imageSource.name} ${image.width} x ${image.height}. A mask must have the size of its image: save it anew.`, { file: maskSource.name });
    }
    const pixels = preprocessMask(mask, { resize, crop, mapSize: crop });
    if (!pixels.includes(1)) {
      throw new InputError(`${maskSource.name}: the mask is black where the images are looked at, so ${imageSource.name} shows no defect to learn from. Mark the defect in white (255), or leave the image out.`, { file: maskSource.name });
    }
    const { regions } = labelRegions(pixels, width, height);
    // A speck of a pixel or two is an artefact of scaling, and what fills most of the image can't be pasted anywhere else.
    const pasteable = regions.filter((region) => region.area >= 4 && region.width * region.height < 0.5 * pixels.length);
    defects.push({ image: resizeAndCrop(image, { resize, crop }), mask: pixels, regions: pasteable.map((region) => ({ x: region.x, y: region.y, width: region.width, height: region.height })) });
  }
  if (sources.length > 0 && defects.length === 0) throw new InputError(`None of the ${sources.length} defects can be read. ${skipped.at(-1)?.reason ?? ''}`, { code: 'no-images' });
  return defects;
}
