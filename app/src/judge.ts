/** What a score and a map mean under a threshold. It is a matter of milliseconds, so that a moved threshold shows at once. */
import { findRegions, localLevels, regionLevel, toSize, type DefectRegion, type Inspection, type ModelMetadata } from '../../src/browser/index.ts';
import type { MapPlace } from './protocol.ts';

export interface Judgement {
  readonly verdict: 'good' | 'defective';
  /** Map values above it belong to a defect: one level for all pixels, or one for each. */
  readonly level: number | Float32Array;
  readonly mask: Uint8Array;
  readonly regions: readonly DefectRegion[];
}

export const verdictOf = (score: number, threshold: number): Judgement['verdict'] => (score > threshold ? 'defective' : 'good');

/** Where an inspection's map lies on its picture. */
export function placeOf({ mapWidth, mapHeight, placement, tiles }: Inspection, { width, height }: { width: number; height: number }): MapPlace {
  return { width, height, mapWidth, mapHeight, ...placement, views: tiles?.length ?? 1 };
}

export function judge(score: number, map: Float32Array, { mapSize, calibration }: ModelMetadata, threshold: number, place: MapPlace): Judgement {
  const { width, height, mapWidth, mapHeight, views } = place;
  const level = views > 1 ? localLevels(map, mapWidth, mapHeight, calibration, threshold) : regionLevel(map, calibration, threshold);
  const view = toSize(mapSize);
  return { verdict: verdictOf(score, threshold), level, ...findRegions(map, level, {
    placement: place, mapWidth, mapHeight, sourceWidth: width, sourceHeight: height, viewArea: Math.min(view.width * view.height, map.length),
  }) };
}
