/**
 * The gradients of INP-Former++'s whole steps, as the GPU computes them, against central finite differences of the f64
 * reference. The detector's step is no gradient of a scalar, because soft mining weighs what reaches each decoder feature;
 * with these weighted gradients g held constant it is that of sum <g, de> + 0.2 Ls (the golden set holds the weights).
 */
import { expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { DeviceMemory, type MemoryItem } from '../../src/gpu/memory.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { constant, input, sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { detectorConfig, tokenGrid } from '../../src/model/config.ts';
import { fuseGroups } from '../../src/model/encoder.ts';
import { leafGradients } from '../../src/model/graphs.ts';
import { headItems, headLeaves, trainableItems, trainableLeaves, type ParameterLeaves } from '../../src/model/parameters.ts';
import { headTrainingGraph, plusObjective, sliceHeadBatch } from '../../src/model/plus-objective.ts';
import { add, batchMatmul, reshape, scale } from '../../src/ops/index.ts';
import { residual, softCoherenceLoss, softMiningLosses } from '../../src/ops/plus.ts';
import { initialHead } from '../../src/train/plus.ts';
import { testContext } from '../support/gpu.ts';
import { expectClose } from '../support/golden.ts';
import { smallArchitecture } from '../support/small-encoder.ts';

/** Software adapters compile a backward plan's kernels for minutes where the machine is busy. */
const patience = 600_000;
const config = detectorConfig({ architecture: { ...smallArchitecture, width: 12 }, crop: { height: 28, width: 42 }, decoderDepth: 2, numPrototypes: 3, distance: 'cosine+l2', segmentationHead: true });
const { count } = tokenGrid(config);
const detector = { ...config, segmentationHead: false };
const random = new Random('plus gradients');
const normal = (n: number, deviation = 1) => Float32Array.from({ length: n }, () => deviation * random.normal());

/** Runs on the GPU, with a value for every parameter. */
async function run(outputs: Record<string, Tensor>, inputs: Record<string, TensorData>, items: readonly MemoryItem[], values: ReadonlyMap<string, TensorData>): Promise<Record<string, TensorData>> {
  const context = await testContext();
  const memory = await DeviceMemory.allocate(context, 'parameters', items);
  for (const [name, data] of values) memory.write(name, data);
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs }), memory.tensors);
  try {
    return await executable.run(inputs);
  } finally {
    executable.dispose();
    memory.dispose();
  }
}

/** Values of the leaves; a stack's rows from its members'. Random enough that every tensor counts. */
function leafValues(p: ParameterLeaves): Map<string, Float32Array> {
  return new Map(p.all().map((leaf) => {
    const centre = /norm\d\.weight$|learn_scale$/.test(leaf.name) ? 1 : 0;
    return [leaf.name, normal(sizeOf(leaf.shape), 0.3).map((v) => centre + v)];
  }));
}

/** The largest difference from finite differences of `objective` among some elements of each leaf, over the gradient's rms. */
function expectGradients(objective: Tensor, leaves: readonly Tensor[], values: ReadonlyMap<string, Float32Array>, inputs: Record<string, TensorData>, gradients: Record<string, TensorData>): void {
  const feeds = new Map<string, ArrayLike<number>>([...values, ...Object.entries(inputs)]);
  const rms = (x: ArrayLike<number>) => Math.sqrt(Array.from(x).reduce((s, v) => s + v * v, 0) / x.length);
  for (const leaf of leaves) {
    const point = Float64Array.from(values.get(leaf.name)!);
    feeds.set(leaf.name, point);
    const gradient = gradients[leaf.name]!;
    // The gaps between a stack's rows have none.
    const counted = [...gradient.keys()].filter((i) => gradient[i] !== 0);
    expect(counted.length, leaf.name).toBeGreaterThan(0);
    const size = rms(counted.map((i) => gradient[i]!));
    for (const i of Array.from({ length: Math.min(4, counted.length) }, () => random.pick(counted))) {
      const [middle, step] = [point[i]!, 1e-5];
      const at = (value: number): number => { point[i] = value; return interpret([objective], feeds)[0]![0]!; };
      const expected = (at(middle + step) - at(middle - step)) / (2 * step);
      point[i] = middle;
      // The key bias has a true gradient of 0: see the golden set's README.
      if (/aggregation\.0\.attn\.kv\.bias/.test(leaf.name) && i < config.architecture.width) expect(Math.abs(gradient[i]!)).toBeLessThan(1e-6);
      else expect(Math.abs(gradient[i]! - expected) / Math.max(size, 1e-9), `${leaf.name}[${i}]: ${gradient[i]} for ${expected}`).toBeLessThan(2e-3);
    }
  }
}

test('the detector\'s step, in slices as in one', { timeout: patience }, async () => {
  const images = 2;
  const each = count * config.architecture.width;
  const features = [0, 1].map(() => normal(images * each));
  const p = trainableLeaves(detector);
  const values = leafValues(p);
  const graph = (sizes: readonly number[]) => {
    const slices = sizes.map((size, s) => {
      const groups = [0, 1].map((g) => input(`features.${g}.${s}`, [size, count, config.architecture.width]));
      return { groups, fused: fuseGroups(groups, detector) };
    });
    return { slices, objective: plusObjective(slices, p, detector, {}) };
  };
  const inputsOf = (sizes: readonly number[]) => Object.fromEntries(sizes.flatMap((size, s) => [0, 1].map((g) => {
    const first = sizes.slice(0, s).reduce((a, b) => a + b, 0);
    return [`features.${g}.${s}`, features[g]!.slice(first * each, (first + size) * each)];
  })));

  const whole = graph([images]);
  const { loss, reconstructions } = whole.objective;
  const { groups: de, prototypes } = reconstructions[0]!;
  const outputs = { ...Object.fromEntries(leafGradients(loss, p)), loss, de0: de[0]!, de1: de[1]! };
  const results = await run(outputs, inputsOf([images]), trainableItems(detector), values);

  // What reaches each decoder feature from its own losses: of leaves, as one block's output is the next one's input.
  const branches = [0, 1].map((g) => {
    const [enLeaf, deLeaf] = [input(`features.${g}.0`, de[g]!.shape), input(`de${g}`, de[g]!.shape)];
    const { cosine, squaredError } = softMiningLosses([{ en: enLeaf, de: deLeaf }]);
    return differentiate([{ tensor: scale(add(cosine, squaredError), 1 / 2), gradient: constant('one', [1], Float32Array.of(1)) }], [deLeaf], add)[0]!;
  });
  const given = await run({ g0: branches[0]!, g1: branches[1]! }, { ...inputsOf([images]), de0: results['de0']!, de1: results['de1']! }, [], new Map());
  const heldConstant = de.map((t, g) => ({ t, gradient: constant(`g${g}`, t.shape, given[`g${g}`]!) }));
  const along = heldConstant.map(({ t, gradient }) => innerProduct(t, gradient));
  const objective = add(along.reduce(add), scale(softCoherenceLoss([{ x: whole.slices[0]!.fused, prototypes: prototypes! }]), 0.2));
  expectGradients(objective, p.all(), values, inputsOf([images]), results);

  const parts = graph([1, 1]);
  const sliced = await run({ ...Object.fromEntries(leafGradients(parts.objective.loss, p)), loss: parts.objective.loss }, inputsOf([1, 1]), trainableItems(detector), values);
  for (const name of Object.keys(sliced)) expectClose(sliced[name]!, results[name]!, { relL2: 2e-5, name: `${name} in slices` });
});

/** sum of a b, [1], as a matrix product of a row and a column. */
function innerProduct(a: Tensor, b: Tensor): Tensor {
  const size = sizeOf(a.shape);
  return reshape(batchMatmul(reshape(a, [1, 1, size]), reshape(b, [1, size, 1])), [1]);
}

test('the head\'s step, in slices as in one, and nothing flows into the features', { timeout: patience }, async () => {
  const context = await testContext();
  const images = 3;
  const inputs: Record<string, TensorData> = {
    'residual.0': normal(images * count * config.architecture.width).map(Math.abs), schedule: Float32Array.of(0, 0, 0, 0),
    'mask.0': Float32Array.from({ length: images * 28 * 42 }, (_, i) => (i < 2 * 28 * 42 && random.next() > 0.7 ? 1 : 0)),
  };
  const values = new Map([...initialHead(config, 1)].map(([name, data]) => [`trainable.${name}`, data.map((v) => v + 0.1 * random.normal())]));
  const whole = headTrainingGraph(config, images, context.target);
  expect(whole.slices).toEqual([images]);
  const named = (graph: typeof whole) => Object.fromEntries([...graph.gradients].map(([name, gradient]) => [`trainable.${name}`, gradient]));
  const { schedule: _, ...given } = inputs;
  const results = await run({ ...named(whole), loss: whole.loss }, given, headItems(config), values);
  expectGradients(whole.loss, headLeaves(config).all(), values, given, results);

  const parts = headTrainingGraph(config, images, context.target, [1, 2]);
  const cut = (name: string, first: number, end: number) => inputs[name]!.slice((first * inputs[name]!.length) / images, (end * inputs[name]!.length) / images);
  const sliced = await run({ ...named(parts), loss: parts.loss }, {
    'residual.0': cut('residual.0', 0, 1), 'mask.0': cut('mask.0', 0, 1), 'residual.1': cut('residual.0', 1, 3), 'mask.1': cut('mask.0', 1, 3),
  }, headItems(config), values);
  for (const name of Object.keys(sliced)) expectClose(sliced[name]!, results[name]!, { relL2: 2e-5, name: `${name} in slices` });
  expect(sliceHeadBatch(config, 4, { ...context.target, maxStorageBufferBindingSize: 7000 })).toEqual([1, 1, 1, 1]);

  const en = input('en', [1, count, 12]);
  expect(() => differentiate([{ tensor: residual([{ en, de: scale(en, 0.5) }]), gradient: input('seed', [1, count, 12]) }], [en], add)).toThrow(/does not depend on en/);
});
