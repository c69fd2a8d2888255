/** From which level a map's pixel is a defect: the calibrated one, as the user's threshold and the map's own peak change it. */
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
