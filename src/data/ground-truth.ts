/**
 * Ground-truth masks as data sets have them: their union where a defect has several, made black and white where their values
 * are numbers of kinds, and checked against their image.
 */
import { InputError } from '../errors.ts';
import type { RasterImage } from './image.ts';
import { toGrey } from './preprocess.ts';

export interface NamedMask {
  /** What errors call it. */
  readonly name: string;
  readonly mask: RasterImage;
}

/** Half of the values; a mask that stays below it holds numbers of kinds (or 0 and 1), not black and white. */
const HALF = 128;

/**
 * The masks of an image as one, black and white.
 * @param image what they belong to, for its size and name, where it is at hand. A mask may have another resolution, as both
 *   are brought to the same grid, but not another shape.
 * @param isLabels every value but 0 is anomalous
 * @throws InputError naming the mask
 */
export function mergedMask(masks: readonly NamedMask[], image?: { readonly name: string; readonly width: number; readonly height: number }, isLabels = false): RasterImage {
  const [first, ...others] = masks.map(({ name, mask }) => {
    const { width, height } = mask;
    if (image && Math.abs(width * image.height - height * image.width) > Math.max(width, height, image.width, image.height)) {
      throw new InputError(`${name}: the mask has ${width} x ${height} pixels, but its image ${image.name} has ${image.width} x ${image.height}. A mask has the size of its image, or is a scaled copy; an image that its EXIF orientation turns needs a mask turned alike.`, { file: name });
    }
    return { name, ...blackAndWhite(mask, isLabels) };
  });
  const other = others.find(({ width, height }) => width !== first!.width || height !== first!.height);
  if (other) throw new InputError(`${other.name}: the mask has ${other.width} x ${other.height} pixels, ${first!.name}, of the same image, ${first!.width} x ${first!.height}. Masks of one image have one size.`, { file: other.name });
  const { width, height, channels, data } = first!;
  return { width, height, channels, data: others.length === 0 ? data : Uint8Array.from(data, (value, i) => others.reduce((most, mask) => Math.max(most, mask.data[i]!), value)) };
}

function blackAndWhite(mask: RasterImage, isLabels: boolean): RasterImage {
  const grey = toGrey(mask);
  if (!isLabels && Uint8Array.from(grey.data).some((value) => value >= HALF)) return grey;
  return { ...grey, data: Uint8Array.from(grey.data, (value) => (value === 0 ? 0 : 255)) };
}
