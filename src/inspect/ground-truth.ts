/** Ground truth where the model's maps are: a mask takes the way that its image takes, however the model frames images. */
import type { RasterImage } from '../data/image.ts';
import { preprocessMask, toSize } from '../data/preprocess.ts';
import type { ImageSize } from '../model/config.ts';
import type { Inspection } from './inspector.ts';
import { extended, windowOf } from './keep-aspect.ts';
import type { ModelMetadata } from './model-file.ts';
import { placeMap } from './regions.ts';

/**
 * The mask on the grid of the inspection's map: zeros and ones, row-major.
 * @param mask of its image's size, anomalous where it is lighter than mid-grey
 */
export function groundTruth(
  mask: RasterImage, { mapWidth, mapHeight, tiles }: Pick<Inspection, 'mapWidth' | 'mapHeight' | 'tiles'>, { resize, crop, mapSize, framing, view, encoder }: ModelMetadata,
): Uint8Array {
  if (tiles) {
    // The whole image at the tiles' scale.
    const scaled = scaleBy(mask, toSize(resize), toSize(view));
    return preprocessMask(mask, { resize: scaled, crop: scaled, mapSize: { width: mapWidth, height: mapHeight } });
  }
  if (framing !== 'keep-aspect') return preprocessMask(mask, { resize, crop, mapSize: { width: mapWidth, height: mapHeight } });
  const whole = toSize(mapSize);
  const { image, box } = extended(mask, toSize(resize), encoder.architecture.patchSize);
  const truth = preprocessMask(image, { resize, crop, mapSize });
  if (!box) return truth;
  const placement = placeMap({ resize, crop, sourceWidth: image.width, sourceHeight: image.height, mapWidth: whole.width, mapHeight: whole.height });
  const window = windowOf({ ...placement, x: placement.x + box.x, y: placement.y + box.y }, whole, mask);
  return Uint8Array.from({ length: window.width * window.height }, (_, i) =>
    truth[(window.y + Math.floor(i / window.width)) * whole.width + window.x + (i % window.width)]!);
}

function scaleBy({ width, height }: ImageSize, to: ImageSize, from: ImageSize): ImageSize {
  return { width: Math.max(1, Math.round((width * to.width) / from.width)), height: Math.max(1, Math.round((height * to.height) / from.height)) };
}
