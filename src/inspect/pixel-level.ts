/** From which level a map's pixel is a defect: the calibrated one, as the user's threshold and the map's own peak change it. */
import { labelRegions } from '../evaluate/regions.ts';
import type { Calibration } from './calibration.ts';

/** The pixel threshold that goes with a score threshold which the user may have lowered: never above it. */
export function pixelThresholdFor(calibration: Calibration, threshold: number): number {
  return Math.min(calibration.pixelThreshold, threshold);
}

/**
 * Above which level a pixel belongs to a defect in this map: the pixel threshold, and halfway from normal to the map's
 * peak (its full width at half maximum). A plain defect lifts its surroundings above the threshold too, and a box
 * around all of that would not show where it is.
 */
export function regionLevel(map: Float32Array, calibration: Calibration, threshold: number): number {
  const peak = map.reduce((a, b) => Math.max(a, b), -Infinity);
  return Math.max(pixelThresholdFor(calibration, threshold), (calibration.scaleLow + peak) / 2);
}

/**
 * Above which level each pixel belongs to a defect: like `regionLevel` halfway from normal to the peak, but to the peak of the
 * pixel's own spot above the threshold, so that a plain defect does not hide a faint one elsewhere in a large image.
 */
export function localLevels(map: Float32Array, width: number, height: number, calibration: Calibration, threshold: number): Float32Array {
  const lowest = pixelThresholdFor(calibration, threshold);
  const { labels, count } = labelRegions(Uint8Array.from(map, (value) => (value > lowest ? 1 : 0)), width, height);
  const peaks = new Float32Array(count + 1);
  labels.forEach((label, i) => { if (map[i]! > peaks[label]!) peaks[label] = map[i]!; });
  return Float32Array.from(labels, (label) => Math.max(lowest, (calibration.scaleLow + peaks[label]!) / 2));
}
