/** Which normal images are kept out of training, so that the threshold comes from images that the model has not seen. */
import { UsageError } from '../errors.ts';

export interface CalibrationSplit<T> {
  readonly train: T[];
  readonly calibration: T[];
  /** False where `calibration` holds training images, because there were too few to spare any. */
  readonly heldOut: boolean;
  /** What was done, in words. */
  readonly rule: string;
}

/** More held-out images than this hardly move the threshold. */
export const CALIBRATION_IMAGES = 32;
const FEWEST_TO_SPLIT = 8;
const HELD_OUT_SHARE = 0.15;

/**
 * Which normal images to train on and which to hold out for the threshold, given all of them in name order.
 * With a `limit` below their number, exactly the first `limit` are trained on, and up to `count` of the others, evenly
 * spaced, are held out. Otherwise about 15 % are held out, evenly spaced, at least 2 and at most `count`, where there
 * are 8 or more images; fewer are all trained on and calibrated on as well.
 * @throws UsageError for a limit or count that is not a positive integer
 */
export function splitForCalibration<T>(paths: readonly T[], { limit, count = CALIBRATION_IMAGES }: { limit?: number; count?: number } = {}): CalibrationSplit<T> {
  if (limit !== undefined && !(Number.isInteger(limit) && limit > 0)) throw new UsageError(`The limit must be a positive integer, got ${limit}.`);
  if (!(Number.isInteger(count) && count > 0)) throw new UsageError(`The number of calibration images must be a positive integer, got ${count}.`);
  if (limit !== undefined && limit < paths.length) {
    const others = paths.slice(limit);
    const calibration = evenlySpaced(others, count);
    return {
      train: paths.slice(0, limit),
      calibration,
      heldOut: true,
      rule: `the first ${limit} of ${paths.length} images are trained on; the threshold comes from ${calibration.length} of the other ${others.length}`,
    };
  }
  if (paths.length < FEWEST_TO_SPLIT) {
    return {
      train: [...paths],
      calibration: [...paths],
      heldOut: false,
      rule: `${paths.length} ${paths.length === 1 ? 'image is' : 'images are'} too few to hold any out: the threshold comes from the training images, with a wider margin; ${FEWEST_TO_SPLIT} or more normal images make it reliable`,
    };
  }
  const indices = evenlySpaced([...paths.keys()], Math.min(count, Math.max(2, Math.round(HELD_OUT_SHARE * paths.length))));
  const held = new Set(indices);
  const calibration = indices.map((index) => paths[index]!);
  return {
    train: paths.filter((_, index) => !held.has(index)),
    calibration,
    heldOut: true,
    rule: `${calibration.length} of ${paths.length} images, evenly spaced, are held out of training for the threshold`,
  };
}

/** At most `count` items, the middle one of each of `count` equal stretches, so that neither end is favoured. */
export function evenlySpaced<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  return Array.from({ length: count }, (_, i) => items[Math.floor(((i + 0.5) * items.length) / count)]!);
}
