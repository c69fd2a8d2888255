/** Cosine maps, losses, soft mining and coherence against the reference implementation: outputs and gradients. */
import { expect, test } from 'vitest';
import * as ops from '../../src/ops/index.ts';
import { describeGolden, float32, maxAbsDifference } from '../support/golden.ts';
import { runPiece } from '../support/piece.ts';

describeGolden('losses', () => {
  test('cosine_map', async () => {
    await runPiece('cosine_map', ({ en, de }) => ({ outputs: { map: ops.cosineMap(en!, de!) }, from: 'map' }));
  });

  test('cosine_vector_loss', async () => {
    await runPiece('cosine_vector_loss', ({ en, de }) => ({ outputs: { loss: ops.vectorCosineLoss(en!, de!) }, from: 'loss' }));
  });

  test('cosine_hard_mining', async () => {
    const { results, golden } = await runPiece('cosine_hard_mining', (inputs) => {
      const groups = Object.keys(inputs).filter((k) => k.startsWith('en')).map((k) => ({ en: inputs[k]!, de: inputs[`de${k.slice(2)}`]! }));
      const losses = groups.map((g) => ops.miningCosineLoss([g]));
      const factors = Object.fromEntries(groups.map((g, i) => [`_factor${i}`, ops.hardMiningFactor(g.en, g.de)]));
      return { outputs: { loss: ops.scale(losses.reduce(ops.add), 1 / groups.length), ...factors }, from: 'loss' };
    });
    expect(maxAbsDifference(results['loss']!, float32(golden, 'out.loss'))).toBeLessThanOrEqual(5e-6);
  });

  test('coherence_min', async () => {
    const { results, golden } = await runPiece('coherence_min', ({ x, P }) => {
      const { distance, index } = ops.coherence(x!, P!);
      return { outputs: { Lc: ops.mean(distance), _distance: distance, index }, from: 'Lc' };
    });
    expect(Array.from(results['index']!)).toEqual(Array.from(golden.get('out.index')!.data));
  });

  test('the hook on the features themselves gives the same gradient as on their dot products', async () => {
    const { golden, results } = await runPiece('cosine_hard_mining', (inputs) => {
      const groups = Object.keys(inputs).filter((k) => k.startsWith('en')).map((k) => ({ en: inputs[k]!, de: inputs[`de${k.slice(2)}`]! }));
      const losses = groups.map(({ en, de }) => ops.vectorCosineLoss(en, ops.scaleTokenGradient(de, ops.hardMiningFactor(en, de, { power: 3 }))));
      return { outputs: { loss: ops.scale(losses.reduce(ops.add), 1 / groups.length) }, from: 'loss' };
    });
    expect(maxAbsDifference(results['loss']!, float32(golden, 'out.loss'))).toBeLessThanOrEqual(5e-6);
  });
});
