// Images in a batch get the very numbers that they get alone: whatever the adapter, no kernel of an inspection divides
// an image's sums otherwise because others are in the batch. Told by the plans, without a GPU.
import { expect, it } from 'vitest';
import { defaultTarget, type Target } from '../../src/gpu/target.ts';
import { compile } from '../../src/graph/plan.ts';
import { detectorConfig, type DetectorConfig } from '../../src/model/config.ts';
import { inspectionGraph } from '../../src/model/graphs.ts';
import { imagesLeaf } from '../../src/model/image-stage.ts';
import { findEncoder } from '../../src/weights/catalog.ts';

/** Each node's dispatches, and how many parts its sums are cut into where the kernel's label tells. */
function divisions(config: DetectorConfig, batchSize: number, family: Target['family']): string[] {
  const { scoring } = inspectionGraph(imagesLeaf(batchSize, config.crop), config);
  const { dispatches } = compile({ target: { ...defaultTarget, family }, outputs: { score: scoring.score } });
  // The prototype tokens are copied for each image of a batch; alone they need no copy.
  return dispatches.filter(({ node }) => !node.includes('repeatBatch')).map(({ node, kernel }) => `${node}: ${/\d+ parts|\/\d+$|sum of \d+/.exec(kernel.label)?.[0] ?? 'whole'}`);
}

it.each((['gpu', 'lavapipe', 'swiftshader'] as const).flatMap((family) => [['tiny', 224], ['dinov2-small', 168], ['dinov2-base', 392]].map(([name, crop]) => [family, name, crop] as const)))('on %s with %s at %s', (family, name, crop) => {
  const config = detectorConfig({ architecture: findEncoder(name as string).architecture, crop: crop as number });
  const alone = divisions(config, 1, family);
  for (const batchSize of [2, 8]) expect(divisions(config, batchSize, family)).toEqual(alone);
});
