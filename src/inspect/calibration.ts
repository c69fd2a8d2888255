/**
 * Where normal ends, from normal images that were not trained on. Score threshold: the 97.5 % prediction bound for one
 * more normal image, mean + k(n) * std with k(n) = t(0.975, n-1) * sqrt(1 + 1/n) (k = 2.5 for 8 images, 2.1 for 32,
 * never above 4), and never below the highest score seen; both over the images left when outliers are set aside, because
 * one odd or mislabelled image among the normal ones would otherwise hide most defects. Pixel threshold: the level that one
 * normal pixel in a thousand exceeds, at most the score threshold. The heat map's scale is fixed by both: low is the median normal pixel, and the
 * pixel threshold sits at a fifth of it, because a plain defect lies several times as far above normal and lifts the
 * level of the whole image a little: on a shorter scale all of that image would look hot.
 */
import { UsageError } from '../errors.ts';

export interface Calibration {
  /** An image with a higher score is defective. */
  readonly threshold: number;
  /** A pixel with a higher value belongs to a defect. At most `threshold`, so a defective image has such pixels. */
  readonly pixelThreshold: number;
  /** The heat map's fixed scale: the map values of its cold and hot end. */
  readonly scaleLow: number;
  readonly scaleHigh: number;
  /** Number of images calibrated on, outliers among them. */
  readonly count: number;
  /** How many were set aside, see {@link outlyingScores}. */
  readonly outliers: number;
  /** Of the scores that are not outliers. */
  readonly scoreMean: number;
  /** Their sample standard deviation as the rule used it, that is, at least {@link STD_FLOOR} of the mean. */
  readonly scoreStd: number;
  readonly scoreMax: number;
  /** All scores calibrated on, ascending: what a person compares a new score with. */
  readonly scores: readonly number[];
  /** The rule in words, with its figures. */
  readonly rule: string;
}

export interface CalibrationInput {
  /** Image scores of normal images. */
  readonly scores: readonly number[];
  /** Their anomaly maps, in the same order, or a part of them. */
  readonly maps: readonly Float32Array[];
  /** Whether the images were held out of training; otherwise the margins are widened. True by default. */
  readonly heldOut?: boolean;
  /** What they are, in words, e.g. 'views of 2 shots, each judged without its own'. */
  readonly what?: string;
}

/** Scores of few images can agree by chance; their spread is taken as at least this share of their mean. */
export const STD_FLOOR = 0.05;
/** The model has seen its training images, which score lower than new ones: the margin above their mean grows by this. */
export const SEEN_IMAGES_WIDENING = 1.5;
/** t(0.975) of two images is 12.7. */
const MAX_FACTOR = 4;
const NORMAL_PIXEL_QUANTILE = 0.999;
/** An outlier lies this many robust standard deviations (1.4826 MAD) above the median; of a normal distribution, one in 2000 does. */
const OUTLIER_DISTANCE = 3.3;
/** The median deviation of fewer scores says too little. */
const FEWEST_FOR_OUTLIERS = 16;
/** More images than this share of all are no outliers but part of what normal looks like. */
const MOST_OUTLIERS = 0.1;
/** Length of the heat map's scale, in distances from the median normal pixel to the pixel threshold. */
export const SCALE_SPANS = 5;

/** @throws UsageError without scores or maps, or if one is not finite. */
export function calibrate({ scores, maps, heldOut = true, what }: CalibrationInput): Calibration {
  const count = scores.length;
  if (count === 0 || maps.length === 0) throw new UsageError('Calibration needs at least one normal image, with its score and its map; got none.');
  if (!scores.every(Number.isFinite)) throw new UsageError(`Calibration needs finite scores, got ${scores.find((score) => !Number.isFinite(score))}.`);

  const outlying = new Set(outlyingScores(scores));
  const usual = scores.filter((_, i) => !outlying.has(i));
  const scoreMean = usual.reduce((sum, score) => sum + score, 0) / usual.length;
  const variance = usual.length < 2 ? 0 : usual.reduce((sum, score) => sum + (score - scoreMean) ** 2, 0) / (usual.length - 1);
  const scoreStd = Math.max(Math.sqrt(variance), STD_FLOOR * Math.abs(scoreMean));
  const scoreMax = usual.reduce((max, score) => Math.max(max, score), -Infinity);
  const factor = predictionFactor(usual.length);
  const widening = heldOut ? 1 : SEEN_IMAGES_WIDENING;
  const threshold = scoreMean + widening * Math.max(factor * scoreStd, scoreMax - scoreMean);

  const pixels = sortedPixels(maps.length === count ? maps.filter((_, i) => !outlying.has(i)) : maps);
  const scaleLow = quantile(pixels, 0.5);
  const pixelLimit = scaleLow + widening * (quantile(pixels, NORMAL_PIXEL_QUANTILE) - scaleLow);
  const pixelThreshold = Math.min(threshold, pixelLimit);
  // Maps without any spread would leave a scale of width zero, and nothing to colour by.
  const span = Math.max(pixelThreshold - scaleLow, STD_FLOOR * Math.abs(scaleLow), 1e-6);

  const named = what ?? `${count === 1 ? 'normal image' : 'normal images'} ${heldOut ? 'held out of training' : 'of the training set'}`;
  const images = `${count} ${named}${heldOut ? '' : ` (margins widened ${SEEN_IMAGES_WIDENING} times)`}`;
  return {
    threshold,
    pixelThreshold,
    scaleLow,
    scaleHigh: scaleLow + SCALE_SPANS * span,
    count,
    outliers: outlying.size,
    scoreMean,
    scoreStd,
    scoreMax,
    scores: [...scores].sort((a, b) => a - b),
    rule: `97.5 % prediction bound, mean + ${factor.toFixed(2)} std, at least the highest score, of ${images}${outlying.size > 0 ? `, ${outlying.size} of them set aside as ${outlying.size === 1 ? 'an outlier' : 'outliers'}` : ''}; a pixel counts as defective above the 99.9 % quantile of their pixels`,
  };
}

/**
 * Indices of the scores so far above the others that their images are odd, mislabelled or damaged: more than 3.3 robust
 * standard deviations above the median. None among fewer than 16 scores, and none where more than a tenth would be.
 */
export function outlyingScores(scores: readonly number[]): number[] {
  if (scores.length < FEWEST_FOR_OUTLIERS) return [];
  const median = medianOf(scores);
  const spread = Math.max(1.4826 * medianOf(scores.map((score) => Math.abs(score - median))), STD_FLOOR * Math.abs(median));
  const outlying = [...scores.keys()].filter((i) => scores[i]! > median + OUTLIER_DISTANCE * spread);
  return outlying.length > MOST_OUTLIERS * scores.length ? [] : outlying;
}

/**
 * k(n) = t(0.975, n-1) * sqrt(1 + 1/n): a new draw of a normal distribution stays below mean + k * std with 97.5 %
 * probability. Student's quantile by its expansion around the normal one (Abramowitz and Stegun 26.7.5), which is off
 * by 3 % at 3 degrees of freedom and by 0.2 % at 7; below that the limit decides.
 */
function predictionFactor(count: number): number {
  if (count < 4) return MAX_FACTOR;
  const z = 1.959964;
  const degrees = count - 1;
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
  ];
  const t = terms.reduce((sum, term, i) => sum + term / degrees ** (i + 1), z);
  return Math.min(MAX_FACTOR, t * Math.sqrt(1 + 1 / count));
}

function sortedPixels(maps: readonly Float32Array[]): Float32Array {
  const pixels = new Float32Array(maps.reduce((sum, map) => sum + map.length, 0));
  let offset = 0;
  for (const map of maps) {
    if (!map.every(Number.isFinite)) throw new UsageError('Calibration needs finite anomaly maps, got one with NaN or infinity.');
    pixels.set(map, offset);
    offset += map.length;
  }
  return pixels.sort();
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Linear interpolation between the two nearest order statistics. */
function quantile(sorted: Float32Array, share: number): number {
  const position = share * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below]! + (position - below) * (sorted[above]! - sorted[below]!);
}
