/**
 * Every variant of a kernel that autotuning can pick, forced on the whole model: inspection and the training step give the
 * bits that the family's own choice gives, which the other golden tests hold to the reference.
 */
import { expect, test } from 'vitest';
import { inspectionGraph, cachedFeatures, trainingGraph } from '../../src/model/graphs.ts';
import { encode } from '../../src/model/encoder.ts';
import { uploadEncoder, uploadTrainables } from '../../src/model/memory.ts';
import { gemmVariants } from '../../src/ops/index.ts';
import { input } from '../../src/graph/tensor.ts';
import { ForcedTuning } from '../support/forced-tuning.ts';
import { describeGolden, float32 } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';
import { featuresPerImage, loadModelCase, modelCases, runGraph, sliceInputs } from '../support/model.ts';

describeGolden('kernel variants', () => {
  // One case is enough: what the variants do with other shapes is held by test/graph/autotune.test.ts.
  test('each gives the same bits', { timeout: 1_200_000 }, async () => {
    const { config, settings, objective, forward, encoder, trainables } = await loadModelCase(modelCases()[0]!);
    const context = await testContext();
    const memories = [await uploadEncoder(context, encoder, config), await uploadTrainables(context, trainables, config)];
    const image = input('image', forward.get('image')!.shape);
    const feeds = { image: float32(forward, 'image') };
    const cached = cachedFeatures(encode(image, config), config);
    const features = featuresPerImage(Object.values(await runGraph(Object.fromEntries(cached.map((t, i) => [String(i), t])), feeds, memories)), settings.batch);
    const run = async (tuning: Map<string, string>) => {
      const target = { ...context.target, tuning };
      const { scoring } = inspectionGraph(image, config, settings.map_size);
      const graph = trainingGraph(config, settings.batch, target, objective);
      return {
        ...await runGraph({ map: scoring.map, score: scoring.score }, feeds, memories, target),
        ...await runGraph({ loss: graph.objective.loss, norm: graph.norm, ...Object.fromEntries(graph.gradients) }, sliceInputs(features, graph.slices, cached.length), memories, target),
      };
    };
    try {
      const expected = await run(new Map());
      for (const variant of Object.keys(gemmVariants)) expect(await run(new ForcedTuning(variant)), variant).toEqual(expected);
    } finally {
      for (const memory of memories) memory.dispose();
    }
  });
});
