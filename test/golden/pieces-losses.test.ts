/** Cosine maps, losses, soft mining and coherence against the reference implementation: outputs and gradients. */
import { expect, test } from 'vitest';
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import * as ops from '../../src/ops/index.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors, maxAbsDifference } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

type Shapes = Record<string, Record<string, number[]>>;

/** Runs a piece on its golden inputs: the outputs by name, and `grad.*` for the inputs that the set has gradients of. */
async function runPiece(piece: string, build: (inputs: Record<string, Tensor>) => { outputs: Record<string, Tensor>; from: string }) {
  const shapes = goldenJson<Shapes>('pieces/index.json')[piece]!;
  const golden = goldenTensors(`pieces/${piece}.safetensors`);
  const inputs = Object.fromEntries(Object.keys(shapes).filter((k) => k.startsWith('in.')).map((k) => [k.slice(3), input(k, shapes[k]!)]));
  const { outputs, from } = build(inputs);
  const source = outputs[from]!;
  const wanted = Object.keys(shapes).filter((k) => k.startsWith('grad.'));
  const gradients = differentiate([{ tensor: source, gradient: input('seed', source.shape) }], wanted.map((k) => inputs[k.slice(5)]!), ops.add);
  const feeds: Record<string, TensorData> = { seed: float32(golden, `gout.${from}`) };
  for (const name of Object.keys(inputs)) feeds[`in.${name}`] = float32(golden, `in.${name}`);
  const context = await testContext();
  const all = { ...outputs, ...Object.fromEntries(wanted.map((k, i) => [k, gradients[i]!])) };
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs: all }));
  const results = await executable.run(feeds);
  executable.dispose();
  for (const k of wanted) expectClose(results[k]!, float32(golden, k), { relL2: 1e-4, maxOfRms: 5e-4, name: `${piece} ${k}` });
  for (const [name, values] of Object.entries(results)) {
    const expected = golden.get(`out.${name}`);
    if (expected?.dtype === 'F32') expectClose(values, float32(golden, `out.${name}`), { relL2: 1e-5, maxOfRms: 1e-4, name: `${piece} ${name}` });
  }
  return { results, golden };
}

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
