/**
 * Made-up defects to look at, as a training of the segmentation head on the same images with the same seed would get them
 * first: sample i is a function of the seed, of i, and of the images.
 */
import type { ImageSource, RasterImage } from '../data/image.ts';
import { resizeAndCrop, toSize, type Size } from '../data/preprocess.ts';
import type { PseudoAnomaly } from '../data/pseudo-anomaly.ts';
import { AbortedError, InputError, UsageError } from '../errors.ts';
import { drawSample, readDefects, type DefectSource } from './defects.ts';

export type { DefectKind, PseudoAnomaly } from '../data/pseudo-anomaly.ts';
export type { DefectSource } from './defects.ts';

export interface PseudoAnomalyOptions {
  /** Normal images, taken in turn. */
  readonly images: readonly ImageSource[];
  /** How many samples; default 16. */
  readonly count?: number;
  /** What images are resized to, pixels; default 448. */
  readonly resize?: Size;
  /** The centre crop; default 392. */
  readonly crop?: Size;
  readonly seed?: number;
  /** As `plus.textures` and `plus.defects` of `trainInspector`. */
  readonly textures?: readonly ImageSource[];
  readonly defects?: readonly DefectSource[];
  readonly signal?: AbortSignal;
}

export interface PseudoAnomalySample extends PseudoAnomaly {
  /** The image that it was made on. */
  readonly source: ImageSource;
  /** That image as the encoder would see it, RGB, of the sample's size. */
  readonly normal: RasterImage;
}

/**
 * Source: INP-Former++ (arXiv 2506.03660) section III-D; see data/pseudo-anomaly.ts. Needs no GPU.
 * @throws UsageError for options that contradict each other; InputError without images, for a defect whose mask does not fit, or for what
 *   can't be read; AbortedError when the signal fires
 */
export async function* pseudoAnomalies({ images, count = 16, resize = 448, crop = 392, seed = 1, textures, defects: sources = [], signal }: PseudoAnomalyOptions): AsyncGenerator<PseudoAnomalySample> {
  if (!Number.isInteger(count) || count < 1) throw new UsageError(`count must be a positive integer, got ${count}.`);
  if (images.length === 0) throw new InputError('There are no images to make defects on: give at least one normal image.', { code: 'no-images' });
  const [from, to] = [toSize(resize, 'resize'), toSize(crop, 'crop')];
  if (to.width > from.width || to.height > from.height) throw new UsageError(`A crop of ${to.width} x ${to.height} does not fit into images resized to ${from.width} x ${from.height}: give a smaller crop, or a larger size.`);
  const defects = await readDefects(sources, { resize, crop });
  for (let i = 0; i < count; i++) {
    if (signal?.aborted) throw new AbortedError(`Stopped after ${i} of ${count} samples.`);
    const source = images[i % images.length]!;
    const normal = resizeAndCrop(await source.load(), { resize, crop });
    yield { ...await drawSample(normal, i, { seed, textures, defects }), source, normal };
  }
}
