/** What a score and a map mean under a threshold. It is a matter of milliseconds, so that a moved threshold shows at once. */
import { findRegions, mapToSource, regionLevel, type DefectRegion, type ModelMetadata } from '../../src/browser/index.ts';
import type { MapPlace } from './protocol.ts';

export interface Judgement {
  readonly verdict: 'good' | 'defective';
  /** Map values above it belong to a defect. */
  readonly level: number;
  readonly mask: Uint8Array;
  readonly regions: readonly DefectRegion[];
}

export const verdictOf = (score: number, threshold: number): Judgement['verdict'] => (score > threshold ? 'defective' : 'good');

/** Where the model puts its map on a picture. */
export function placeOf({ resize, crop, mapSize }: ModelMetadata, { width, height }: { width: number; height: number }): MapPlace {
  const size = { mapWidth: mapSize, mapHeight: mapSize };
  return { width, height, ...size, ...mapToSource({ resize, crop, ...size, sourceWidth: width, sourceHeight: height }) };
}

export function judge(score: number, map: Float32Array, { resize, crop, calibration }: ModelMetadata, threshold: number, { width, height, mapWidth, mapHeight }: MapPlace): Judgement {
  const level = regionLevel(map, calibration, threshold);
  return { verdict: verdictOf(score, threshold), level, ...findRegions(map, level, { resize, crop, mapWidth, mapHeight, sourceWidth: width, sourceHeight: height }) };
}
