/**
 * Initial values of the trained tensors, as the reference draws them: linear weights from a normal of std 0.01 cut at
 * 0.03, biases 0, layer norms 1 and 0, learnScale 1, prototype tokens from N(0, 1). Every tensor has its own random
 * stream, named by the seed and the tensor, so that the order of drawing plays no part. The segmentation head's are drawn
 * where it is trained.
 */
import { Random } from '../data/random.ts';
import { sizeOf } from '../graph/tensor.ts';
import type { DetectorConfig } from '../model/config.ts';
import { trainableShapes } from '../model/parameters.ts';

export function initialTrainables(config: DetectorConfig, seed: number): Map<string, Float32Array> {
  return new Map([...trainableShapes({ ...config, segmentationHead: false })].map(([name, shape]) => {
    const values = new Float32Array(sizeOf(shape));
    const random = new Random(`${seed}/${name}`);
    if (name === 'prototype_token') for (let i = 0; i < values.length; i++) values[i] = random.normal();
    else if (name.endsWith('learn_scale') || /norm\d\.weight$/.test(name)) values.fill(1);
    else if (name.endsWith('.weight')) for (let i = 0; i < values.length; i++) values[i] = random.truncatedNormal(0.01, -0.03, 0.03);
    return [name, values];
  }));
}
