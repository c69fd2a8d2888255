/** A training so small that every runtime does it in seconds, on images that are drawn: the same code in Node and in a page. */
import { proceduralSet, renderSample } from '../../src/data/procedural.ts';
import type { RasterImage } from '../../src/data/image.ts';
import { trainInspector, type Engine, type EncoderWeights, type TrainOptions, type TrainResult } from '../../src/index.ts';

const texture = 'woven-cloth';

export function trainSmall(engine: Engine, encoder: EncoderWeights, options: Partial<TrainOptions>): Promise<TrainResult> {
  const images = proceduralSet({ texture, seed: 'e2e', size: 64, train: 6, testGood: 0, testDefective: 0 })
    .map(({ path, render }) => ({ name: path, load: async () => render().image }));
  return trainInspector(engine, { encoder, images, resize: 56, crop: 56, warmupSteps: 1, batchSize: 3, seed: 1, ...options });
}

/** A part with a plain defect, of no size that the training has seen. */
export function defectiveImage(): RasterImage {
  return renderSample({ texture, seed: 'e2e/defective', size: 80, defect: { kind: 'stain', strength: 1, extent: 1 } }).image;
}
