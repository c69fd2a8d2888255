/** A model file without a training: every trained tensor is random and none is at its initial value, so that each counts in what comes out. */
import { Random } from '../../src/data/random.ts';
import { sizeOf } from '../../src/graph/tensor.ts';
import type { Size } from '../../src/data/preprocess.ts';
import { calibrate } from '../../src/inspect/calibration.ts';
import { writeModel, type Framing } from '../../src/inspect/model-file.ts';
import { detectorConfig, type DetectorOptions } from '../../src/model/config.ts';
import { trainableShapes } from '../../src/model/parameters.ts';
import type { EncoderWeights } from '../../src/weights/encoder.ts';

export interface RandomModelOptions extends Omit<DetectorOptions, 'architecture'> {
  readonly resize: Size;
  readonly mapSize?: Size;
  readonly framing?: Framing;
  /** That of the crop by default. */
  readonly view?: Size;
}

export function randomModel(encoder: EncoderWeights, { resize, mapSize = 256, framing = 'stretch', view, ...options }: RandomModelOptions): Uint8Array {
  const { architecture, name, sha256 } = encoder;
  const config = detectorConfig({ ...options, architecture });
  const values = new Map([...trainableShapes(config)].map(([tensor, shape]) => {
    const random = new Random(`model/${tensor}`);
    const centre = /norm\d\.weight$|learn_scale$/.test(tensor) ? 1 : 0;
    const spread = tensor === 'prototype_token' ? 1 : /(fc\d|q|kv|proj)\.weight$/.test(tensor) ? 1.5 / Math.sqrt(shape[1]!) : /^head\.\d\.weight$/.test(tensor) ? 1 / Math.sqrt(shape[0]!) : 0.3;
    return [tensor, Float32Array.from({ length: sizeOf(shape) }, () => centre + spread * random.normal())];
  }));
  return writeModel(values, {
    ...config, version: 1, encoder: { name, sha256, numHeads: architecture.numHeads, architecture },
    resize, crop: options.crop, mapSize, framing, view: view ?? options.crop,
    calibration: calibrate({ scores: [0.3, 0.32, 0.35], maps: [Float32Array.of(0.1, 0.2, 0.3)] }),
    training: { images: 3, steps: 1, batchSize: 1, warmupSteps: 0, learningRate: 1e-3, finalLearningRate: 1e-4, seed: 1, finalLoss: 1 },
  });
}
