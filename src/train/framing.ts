/**
 * How training images are framed where they are not stretched: without distortion, in a shape that comes from the images
 * themselves, or cut into tiles. Loaded only for such trainings.
 */
import { Random } from '../data/random.ts';
import type { ImageSource, RasterImage } from '../data/image.ts';
import { toSize } from '../data/preprocess.ts';
import { InpFormerError, UsageError } from '../errors.ts';
import type { FramedModel } from '../inspect/framed.ts';
import { inspectFramed, type InspectionNetwork } from '../inspect/inspector.ts';
import { extended, medianShape, shapeFor } from '../inspect/keep-aspect.ts';
import { trainingTiles } from '../inspect/tiles.ts';
import { cutView } from '../inspect/view.ts';
import type { ImageSize } from '../model/config.ts';
import { defaultMapSize } from '../model/scoring.ts';
import type { TrainingFraming, TrainOptions } from './train.ts';

/** Images that are looked at, spread evenly over all, to find the shape that is usual among them. */
const imagesForShape = 32;

export async function framingOf(options: TrainOptions): Promise<TrainingFraming> {
  if (options.keepAspect && options.tile) throw new UsageError('Give keepAspect or tile, not both: tiles are not distorted anyway.');
  return options.tile ? tiled(options) : undistorted(options);
}

/** One scale for both axes; with a number for the crop, in the shape of the median image. */
async function undistorted({ encoder, images, resize, crop = 392, skipUnreadable = false }: TrainOptions): Promise<TrainingFraming> {
  const { patchSize } = encoder.architecture;
  const given = toSize(crop, 'crop');
  const to = typeof crop === 'number' ? await usualShape(images, crop, patchSize, skipUnreadable) : given;
  const whole = resize === undefined ? to : toSize(resize, 'resize');
  // A number says how much more than the crop is seen before it.
  const from = typeof resize === 'number' ? scaled(to, resize / Math.sqrt(given.width * given.height)) : whole;
  return { framing: 'keep-aspect', resize: from, crop: to, views: (source, image) => {
    const view = (original: RasterImage) => extended(original, from, patchSize).image;
    return [{ image: view(image), source: { ...source, load: async () => view(await source.load()) } }];
  } };
}

function scaled({ height, width }: ImageSize, factor: number): ImageSize {
  return { height: Math.round(height * factor), width: Math.round(width * factor) };
}

async function usualShape(images: readonly ImageSource[], side: number, patchSize: number, skipUnreadable: boolean): Promise<ImageSize> {
  const count = Math.min(images.length, imagesForShape);
  const sizes: ImageSize[] = [];
  for (let i = 0; i < count; i++) {
    try {
      const { width, height } = await images[Math.floor((i * images.length) / count)]!.load();
      sizes.push({ width, height });
    } catch (error) {
      // Encoding reports it; and fails, where nothing can be read.
      if (!skipUnreadable || !(error instanceof InpFormerError)) throw error;
    }
  }
  return sizes.length === 0 ? { width: side, height: side } : shapeFor(medianShape(sizes), side, patchSize);
}

function tiled({ crop = 392, resize, tile, seed = 1 }: TrainOptions): TrainingFraming {
  if (resize !== undefined) throw new UsageError('Tiles are resized to the crop: leave resize out, and say with tile.size how large a tile is in the image.');
  const { size = crop, perImage = Infinity } = typeof tile === 'object' ? tile : {};
  if (perImage !== Infinity && !(Number.isInteger(perImage) && perImage >= 1)) throw new UsageError(`tile.perImage must be a positive integer, got ${perImage}.`);
  const to = toSize(crop, 'crop');
  const from = toSize(size, 'tile.size');
  return {
    framing: 'tiles', resize: to, crop: to, tile: from,
    * views(source, image) {
      const { name } = source;
      const boxes = trainingTiles(image, from);
      const drawn = new Set(new Random(`${seed}/tiles of ${name}`).shuffle(boxes.map((_, i) => i)).slice(0, perImage));
      for (const box of boxes.filter((_, i) => drawn.has(i))) {
        yield { image: cutView(image, box), source: { ...source, name: `${name} (${box.x}, ${box.y})`, load: async () => cutView(await source.load(), box) } };
      }
    },
  };
}

/** An image that calibrates, as each network sees it with the model's framing. */
export function judgedAsFramed(
  networks: readonly InspectionNetwork[], image: RasterImage, framed: FramedModel, signal: AbortSignal | undefined,
): Promise<{ score: number; map: Float32Array }[]> {
  return Promise.all(networks.map(async (network) => {
    const { score, map } = (await inspectFramed(network, [image], framed, { tile: framed.framing === 'tiles' && { ...(signal && { signal }) } }))[0]!;
    return { score, map: thinned(map) };
  }));
}

/** The quantiles of a large image's map show in a part of it: every n-th pixel, n odd, so that columns take turns. */
function thinned(map: Float32Array): Float32Array {
  const step = Math.floor(map.length / (2 * defaultMapSize ** 2)) * 2 + 1;
  return step === 1 ? map : map.filter((_, i) => i % step === 0);
}
