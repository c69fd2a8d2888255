// Every node of the detector's own graphs against its reference, from the inputs that the kernel had; and a kernel that
// is wrong is found and named.
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { KernelError, UsageError } from '../../src/errors.ts';
import { kernel, wgsl } from '../../src/gpu/wgsl.ts';
import { checkAgainstReference } from '../../src/graph/check.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { apply, input, parameter, reachableNodes, sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { detectorConfig } from '../../src/model/config.ts';
import { encoderParameters, encoderPrefix } from '../../src/model/encoder.ts';
import { inspectionGraph, trainingGraph, zeroShotScoring } from '../../src/model/graphs.ts';
import { trainablePrefix } from '../../src/model/parameters.ts';
import { gelu, pack, scale, stableAdamWSchedule } from '../../src/ops/index.ts';
import { initialTrainables } from '../../src/train/trainables.ts';
import { testContext } from '../support/gpu.ts';
import { smallArchitecture, smallEncoder } from '../support/small-encoder.ts';

const config = detectorConfig({ architecture: smallArchitecture, crop: { height: 56, width: 70 }, decoderDepth: 1, encoderGroups: [[0, 1, 2, 3]], decoderGroups: [[0]], numPrototypes: 3 });

/** The model's own values by leaf name, and random ones for the rest. */
async function feedsOf(outputs: readonly Tensor[]): Promise<Record<string, TensorData>> {
  const random = new Random('check');
  const encoder = encoderParameters(await smallEncoder(), config);
  const trainables = initialTrainables(config, 1);
  // Larger than at the start of a training, so that every branch of the network counts.
  for (const [name, values] of trainables) if (name.endsWith('.weight') && !/norm/.test(name)) values.forEach((v, i) => { values[i] = 10 * v; });
  return Object.fromEntries(reachableNodes(outputs).filter((n) => n.kind === 'input' || n.kind === 'parameter').map(({ name, outputs: [t] }) => {
    const known = encoder.get(name.slice(encoderPrefix.length)) ?? trainables.get(name.slice(trainablePrefix.length));
    const magnitude = name.includes('Moment') ? 1e-4 : 1;
    const drawn = () => Float32Array.from({ length: sizeOf(t!.shape) }, () => magnitude * (name.includes('Moment') ? Math.abs(random.normal()) : random.normal()));
    return [name, name === 'schedule' ? stableAdamWSchedule(3, 1e-3) : known ?? drawn()];
  }));
}

describe('every node agrees with its reference', () => {
  it('in an inspection, from pixels to scores', async () => {
    const graph = inspectionGraph(parameter('images', [2, 3, 56, 70]), config, 24);
    const outputs = [graph.scoring.score, zeroShotScoring(graph, config, 24).score];
    const checks = await checkAgainstReference(await testContext(), outputs, await feedsOf(outputs), { tolerance: 2e-6 });
    expect(checks.length).toBe(reachableNodes(outputs).reduce((sum, n) => sum + (n.kind === 'operation' ? n.outputs.length : 0), 0));
    expect(checks.map((c) => c.relL2)).toEqual(checks.map((c) => c.relL2).sort((a, b) => b - a));
    const seen = new Set(checks.map((c) => c.op));
    for (const op of ['patchEmbedding', 'assembleTokens', 'layerNorm', 'matmul', 'softmaxAttention', 'foldPrototypes', 'foldedAttention', 'resample', 'topMean']) expect(seen).toContain(op);
  });

  it('in a training step, with losses, backward and optimiser', async () => {
    const context = await testContext();
    const { objective, norm, updates } = trainingGraph(config, 2, context.target);
    const outputs = [objective.loss, norm, ...updates];
    const checks = await checkAgainstReference(context, outputs, await feedsOf(outputs), { tolerance: 1e-5 });
    expect(new Set(checks.map((c) => c.op))).toContain('stableAdamW');
    expect(checks.length).toBeGreaterThan(100);
  });
});

describe('a kernel that is wrong', () => {
  const offByFactor: Operation<null> = {
    name: 'offByFactor',
    outputs: ([x]) => [x!],
    kernels: ({ inputs: [x], read, write }) => [{
      kernel: kernel('check.wgsl.ts', 'offByFactor', wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  if (gid.x < ${sizeOf(x!.shape)}u) { y[gid.x] = 2.001f * x[gid.x]; }
}`),
      bindings: [read(0), write(0)], workgroups: [1, 1, 1], flops: 0, bytes: 0,
    }],
    reference: ([x]) => [x!.map((v) => 2 * v)],
  };
  const x = Float32Array.from({ length: 20 }, (_, i) => i / 10 - 1);
  const graph = () => gelu(scale(apply(offByFactor, [gelu(input('x', [20]))], null, 'culprit')[0]!, 3));

  it('is named, though those after it inherit its error', async () => {
    const context = await testContext();
    const error = await checkAgainstReference(context, [graph()], { x }, { tolerance: 1e-5 }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect((error as KernelError).kernel).toBe('offByFactor');
    expect((error as KernelError).message).toMatch(/^culprit \(offByFactor, \[20\]\) differs from its reference by 5\.00e-4 relative L2/);
  });

  it('comes first in the list, and alone differs', async () => {
    const [first, ...rest] = await checkAgainstReference(await testContext(), [graph()], { x });
    expect(first).toMatchObject({ name: 'culprit', op: 'offByFactor' });
    expect(first!.relL2).toBeCloseTo(5e-4, 6);
    for (const check of rest) expect(check.relL2).toBeLessThan(2e-6);
  });

  it('has an infinite error where it yields NaN', async () => {
    const [worst] = await checkAgainstReference(await testContext(), [scale(input('x', [4]), 2)], { x: Float32Array.of(1, NaN, 2, 3) });
    expect(worst!.relL2).toBe(Infinity);
  });
});

it('leaves the padding of a concatenation out', async () => {
  const t = input('x', [5]);
  const checks = await checkAgainstReference(await testContext(), [pack([gelu(t), t], [64, 128], 192)], { x: Float32Array.of(1, 2, 3, 4, 5) }, { tolerance: 1e-6 });
  expect(checks).toHaveLength(2);
});

it('asks for values that are missing, and frees its memory', async () => {
  const context = await testContext();
  const before = context.allocatedBytes;
  await expect(checkAgainstReference(context, [gelu(parameter('p', [4]))], {})).rejects.toThrow(UsageError);
  await checkAgainstReference(context, [gelu(parameter('p', [4]))], { p: new Float32Array(4) });
  expect(context.allocatedBytes).toBe(before);
});
