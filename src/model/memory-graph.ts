/**
 * Inspection without training: the map is the distance of each token to the nearest of the stored normal ones, searched for
 * each feature group by itself and averaged, on the features and through the chain to map and score that the trained
 * detector has. So both can be compared.
 */
import type { Size } from '../data/preprocess.ts';
import { scope, type Tensor } from '../graph/tensor.ts';
import { nearestNeighbour } from '../ops/nearest-neighbour.ts';
import type { DetectorConfig } from './config.ts';
import { encode } from './encoder.ts';
import { memorySlices, trainableLeaves, type Precision } from './parameters.ts';
import { defaultMapSize, scoreTokenMaps, type Scoring } from './scoring.ts';

/** From `images` [B, 3, H, W] to anomaly maps and scores. */
export function memoryGraph(image: Tensor, config: DetectorConfig, mapSize: Size = defaultMapSize, precision?: Precision): { scoring: Scoring } {
  const { groups } = encode(image, config, precision);
  const leaves = trainableLeaves(config, precision);
  const slices = memorySlices(config);
  return { scoring: scope('memory', () => scoreTokenMaps(groups.map((x, g) => nearestNeighbour(x, slices.map((_, s) => leaves.get(`memory.${g}.${s}`)))), config, mapSize)) };
}
