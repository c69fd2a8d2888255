// The variants for comparison, as whole graphs: every kernel of their training steps against its reference, the
// gradients of their losses against finite differences, and that they have what they need and no more.
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';
import { checkAgainstReference } from '../../src/graph/check.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { input, parameter, reachableNodes, sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { detectorConfig, type DetectorOptions } from '../../src/model/config.ts';
import { encoderParameters, encoderPrefix } from '../../src/model/encoder.ts';
import { inspectionGraph, leafGradients, trainingGraph, trainingObjective, zeroShotScoring, type ObjectiveOptions } from '../../src/model/graphs.ts';
import { memoryGraph } from '../../src/model/memory-graph.ts';
import { trainableLeaves, trainablePrefix, trainableShapes } from '../../src/model/parameters.ts';
import { stableAdamWSchedule } from '../../src/ops/index.ts';
import { softCoherenceLoss } from '../../src/ops/soft-coherence.ts';
import { initialTrainables } from '../../src/train/trainables.ts';
import { testContext } from '../support/gpu.ts';
import { smallArchitecture, smallEncoder } from '../support/small-encoder.ts';

const common = { architecture: smallArchitecture, crop: { height: 56, width: 70 }, decoderDepth: 1, encoderGroups: [[0, 1, 2, 3]], decoderGroups: [[0]], numPrototypes: 3, neighbourhood: 3 } as const;
type Variant = [name: string, options: Partial<DetectorOptions>, objective: ObjectiveOptions];
const variants: Variant[] = [
  ['self-attention, no mining', { decoder: 'self-attention' }, { miningPower: 0 }],
  ['neighbours masked, residual', { decoder: 'neighbour-masked', residual: true }, {}],
  ['prototypes, residual, soft coherence', { residual: true }, { coherenceLoss: softCoherenceLoss }],
  ['prototypes, no coherence', {}, { coherenceWeight: 0 }],
];

async function feedsOf(outputs: readonly Tensor[], config: ReturnType<typeof detectorConfig>): Promise<Record<string, TensorData>> {
  const random = new Random('ablations');
  const encoder = encoderParameters(await smallEncoder(), config);
  const trainables = config.method === 'memory' ? new Map<string, Float32Array>() : initialTrainables(config, 1);
  for (const [name, values] of trainables) if (name.endsWith('.weight') && !/norm/.test(name)) values.forEach((v, i) => { values[i] = 10 * v; });
  return Object.fromEntries(reachableNodes(outputs).filter((n) => n.kind === 'input' || n.kind === 'parameter').map(({ name, outputs: [t] }) => {
    const known = encoder.get(name.slice(encoderPrefix.length)) ?? trainables.get(name.slice(trainablePrefix.length));
    const drawn = () => Float32Array.from({ length: sizeOf(t!.shape) }, () => (name.includes('Moment') ? 1e-4 * Math.abs(random.normal()) : random.normal()));
    return [name, name === 'schedule' ? stableAdamWSchedule(3, 1e-3) : known ?? drawn()];
  }));
}

describe.each(variants)('%s', (_, options, objective) => {
  const config = detectorConfig({ ...common, ...options });

  it('agrees with the references, node by node, in a training step', async () => {
    const context = await testContext();
    const step = trainingGraph(config, 2, context.target, objective);
    const outputs = [step.objective.loss, step.norm, ...step.updates];
    const checks = await checkAgainstReference(context, outputs, await feedsOf(outputs, config), { tolerance: 1e-5 });
    expect(checks.length).toBeGreaterThan(60);
  });

  it('has the gradients of its loss', () => {
    // Mining is left out: what it gives is not the gradient of a scalar.
    const features = input('features', [2, 20, smallArchitecture.width]);
    const p = trainableLeaves(config);
    const { loss } = trainingObjective([{ groups: [input('en', [2, 20, smallArchitecture.width])], fused: features }], p, config, { ...objective, miningPower: 0 });
    const gradients = leafGradients(loss, p);
    const random = new Random('finite differences');
    const values = new Map<string, Float64Array>(reachableNodes([loss]).filter((n) => n.kind === 'input' || n.kind === 'parameter')
      .map(({ name, outputs: [t] }) => [name, Float64Array.from({ length: sizeOf(t!.shape) }, () => 0.3 * random.normal())]));
    const names = [...gradients.keys()].filter((name) => /norm1|attn\.(kv|q)\.weight|prototype_token|bottleneck.0.fc1.weight/.test(name));
    expect(names.length).toBeGreaterThan(3);
    const analytic = interpret(names.map((name) => gradients.get(name)!), new Map<string, ArrayLike<number>>([...values, ['one', [1]]]));
    names.forEach((name, n) => {
      const point = values.get(name)!;
      const scale = Math.sqrt(analytic[n]!.reduce((sum, g) => sum + g * g, 0) / analytic[n]!.length);
      for (const i of [0, Math.floor(point.length / 3)]) {
        const middle = point[i]!;
        const [above, below] = [1e-5, -1e-5].map((step) => {
          point[i] = middle + step;
          return interpret([loss], values)[0]![0]!;
        });
        point[i] = middle;
        expect(Math.abs((above! - below!) / 2e-5 - analytic[n]![i]!), `${name}[${i}]`).toBeLessThanOrEqual(1e-4 * scale + 1e-9);
      }
    });
  });
});

describe('a decoder without prototypes', () => {
  const config = detectorConfig({ ...common, decoder: 'self-attention' });

  it('has no tensors for them, no coherence loss and no zero-shot map', () => {
    const names = [...trainableShapes(config).keys()];
    expect(names.filter((name) => /prototype_token|aggregation|learn_scale/.test(name))).toEqual([]);
    expect(names).toContain('decoder.0.attn.kv.weight');
    const graph = inspectionGraph(parameter('images', [1, 3, 56, 70]), config, 24);
    expect(reachableNodes([graph.scoring.score]).some((n) => n.name.includes('extractor'))).toBe(false);
    expect(() => zeroShotScoring(graph, config, 24)).toThrow(UsageError);
  });

  it('refuses a neighbourhood that leaves nothing, and unknown kinds', () => {
    expect(() => detectorConfig({ ...common, decoder: 'neighbour-masked', neighbourhood: 5 })).toThrow(/odd number of tokens below 5/);
    expect(() => detectorConfig({ ...common, decoder: 'neighbour-masked', neighbourhood: 2 })).toThrow(UsageError);
    expect(() => detectorConfig({ ...common, decoder: 'none' as never })).toThrow(/decoder must be/);
    expect(() => detectorConfig({ ...common, method: 'memory' })).toThrow(/positive number of rows/);
  });
});

it('a memory agrees with the references, node by node, from pixels to scores', async () => {
  const config = detectorConfig({ ...common, encoderGroups: [[0, 1], [2, 3]], decoderDepth: 2, decoderGroups: [[0], [1]], method: 'memory', memoryRows: 37 });
  const { scoring } = memoryGraph(parameter('images', [2, 3, 56, 70]), config, 24);
  const outputs = [scoring.score, ...scoring.tokenMaps];
  const checks = await checkAgainstReference(await testContext(), outputs, await feedsOf(outputs, config), { tolerance: 1e-5 });
  expect(checks.filter(({ op }) => op === 'nearestNeighbour')).toHaveLength(2);
});
