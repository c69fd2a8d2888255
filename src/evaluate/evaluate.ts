/**
 * The seven numbers that anomaly-detection papers report, from each image's score, label, anomaly map and mask:
 * image and pixel AUROC, average precision and best F1, and AUPRO (the reference's reading, 200 thresholds).
 */
import { UsageError } from '../errors.ts';
import { auproOfficial, checkScoredMap } from './aupro.ts';
import { rankingMetrics, rankingMetricsOfClasses } from './ranking.ts';

export interface EvaluationSample {
  /** The image's anomaly score; higher is more anomalous. */
  readonly score: number;
  /** 0 normal, 1 defective. */
  readonly label: 0 | 1;
  /** Anomaly map, `width * height`, row-major; maps of different images may differ in size. */
  readonly map?: Float32Array;
  /** Ground truth at the map's size, non-zero = anomalous. A normal image needs none (all zero is meant). */
  readonly mask?: Uint8Array;
  /** Size of map and mask; needed with a map. */
  readonly width?: number;
  readonly height?: number;
  /** What errors call it, e.g. its file. */
  readonly name?: string;
}

/**
 * All in [0, 1]. A number is null where it is undefined: the image metrics without both normal and defective images,
 * the pixel metrics and AUPRO without both normal and anomalous pixels. (null, not NaN, because it survives JSON.)
 */
export interface EvaluationMetrics {
  readonly imageAuroc: number | null;
  readonly imageAp: number | null;
  readonly imageF1Max: number | null;
  readonly pixelAuroc: number | null;
  readonly pixelAp: number | null;
  readonly pixelF1Max: number | null;
  readonly aupro: number | null;
}

export interface Evaluation extends EvaluationMetrics {
  readonly images: number;
  readonly defectiveImages: number;
  /** Images that the pixel metrics use: those with a map that are normal or have a mask. */
  readonly pixelImages: number;
  /** Defective images with a map but without a mask: left out of the pixel metrics. */
  readonly imagesWithoutMask: number;
}

/**
 * Evaluates a data set. Memory: 4 bytes a pixel beside the maps themselves.
 * @throws UsageError for a NaN score, a label other than 0 or 1, or sizes that do not agree; InputError for a map that is not finite.
 */
export function evaluate(samples: readonly EvaluationSample[]): Evaluation {
  let defectiveImages = 0;
  samples.forEach(({ score, label, name }, index) => {
    if (Number.isNaN(score)) throw new UsageError(`${name ?? `sample ${index}`}: its score is NaN; a score must be a number.`);
    if (label !== 0 && label !== 1) throw new UsageError(`${name ?? `sample ${index}`}: its label is ${String(label)}; expected 0 or 1.`);
    defectiveImages += label;
  });
  const image = rankingMetrics(samples.map((sample) => sample.score), samples.map((sample) => sample.label));

  const withMap = samples.filter((sample) => sample.map !== undefined);
  const scoredMaps = withMap
    .filter((sample) => sample.label === 0 || sample.mask !== undefined)
    .map(({ map, mask, width = 0, height = 0, name }) => ({ map: map!, mask, width, height, name }));
  scoredMaps.forEach(checkScoredMap);

  let numPositives = 0;
  let numPixels = 0;
  for (const { map, mask } of scoredMaps) {
    numPixels += map.length;
    if (mask) for (const value of mask) if (value !== 0) numPositives++;
  }
  const positives = new Float32Array(numPositives);
  const negatives = new Float32Array(numPixels - numPositives);
  let p = 0;
  let n = 0;
  for (const { map, mask } of scoredMaps) {
    for (let i = 0; i < map.length; i++) {
      if (mask && mask[i] !== 0) positives[p++] = map[i]!;
      else negatives[n++] = map[i]!;
    }
  }
  const pixel = rankingMetricsOfClasses(positives, negatives);

  return {
    imageAuroc: image?.auroc ?? null,
    imageAp: image?.averagePrecision ?? null,
    imageF1Max: image?.f1Max ?? null,
    pixelAuroc: pixel?.auroc ?? null,
    pixelAp: pixel?.averagePrecision ?? null,
    pixelF1Max: pixel?.f1Max ?? null,
    aupro: auproOfficial(scoredMaps)?.aupro ?? null,
    images: samples.length,
    defectiveImages,
    pixelImages: scoredMaps.length,
    imagesWithoutMask: withMap.length - scoredMaps.length,
  };
}
