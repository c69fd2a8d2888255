/**
 * The anomaly map by group of encoder blocks. Everything between the tokens' errors and the map (upsampling, mean over groups,
 * resizing, blur) is linear, so each group can go the way alone, and INP-Former's map is the mean of what comes out:
 *
 *   map = 1/G sum_g map_g,  map_g = chain(1 - cos(en_g, de_g)), of a memory chain(distance to the nearest stored token).
 *
 * INP-Former++'s map has other parts as well (squared error, segmentation head); its groups show the cosines alone.
 */
import type { Size } from '../data/preprocess.ts';
import type { Tensor, TensorData } from '../graph/tensor.ts';
import type { DetectorConfig } from '../model/config.ts';
import type { InspectionGraph } from '../model/graphs.ts';
import { scoreTokenMaps } from '../model/scoring.ts';
import { cosineMap } from '../ops/index.ts';

/** That of a memory has neither features that are kept nor a reconstruction. */
export type InspectedGraph = Pick<InspectionGraph, 'scoring'> & Partial<InspectionGraph>;

/** What a plan computes for the groups beside map and score: `groupMap.0`, `groupMap.1`, .. [B, H, W]. */
export function groupOutputs({ scoring, features, reconstruction }: InspectedGraph, config: DetectorConfig, mapSize: Size): Record<string, Tensor> {
  const tokenMaps = features && reconstruction ? features.groups.map((en, g) => cosineMap(en, reconstruction.groups[g]!)) : scoring.tokenMaps;
  return Object.fromEntries(tokenMaps.map((tokens, g) => [`groupMap.${g}`, scoreTokenMaps([tokens], config, mapSize).map]));
}

/** Of image `i` of a batch, each as long as its map. */
export function groupMapsOf(outputs: Readonly<Record<string, TensorData>>, i: number, config: DetectorConfig, pixels: number): Float32Array[] {
  return config.encoderGroups.map((_, g) => outputs[`groupMap.${g}`]!.slice(i * pixels, (i + 1) * pixels) as Float32Array);
}
