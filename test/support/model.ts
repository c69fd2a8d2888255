/**
 * What the whole-model golden tests share: a case's configuration from its json, running a graph once on the test
 * adapter, and the comparisons that golden/README.md prescribes for forward tensors, gradients and optimiser steps.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect } from 'vitest';
import type { DeviceTensor } from '../../src/gpu/memory.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { constant, scope, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import type { Target } from '../../src/gpu/target.ts';
import { detectorConfig, encoderEpsilon, headEpsilon, tokenGrid, type DetectorConfig } from '../../src/model/config.ts';
import type { ObjectiveOptions } from '../../src/model/graphs.ts';
import { trainableItems, trainableShapes, type ParameterLeaves } from '../../src/model/parameters.ts';
import { add, stableAdamWDefaults } from '../../src/ops/index.ts';
import { loadEncoderWeights, type EncoderWeights } from '../../src/weights/encoder.ts';
import { expectClose, float32, goldenFolder, goldenJson, goldenTensors, maxAbsDifference, readGolden, rms, type GoldenTensor } from './golden.ts';
import { testContext } from './gpu.ts';
import { projectRoot } from './modules.ts';

export interface OptimizerRecord {
  readonly warmup_iters: number;
  readonly total_iters: number;
  readonly lr: readonly number[];
  readonly loss_cos: readonly number[];
  readonly loss_Lc: readonly number[];
  readonly loss_total: readonly number[];
  readonly grad_norm: readonly number[];
}

/** The parts of a synthetic case's config.json that the tests read. */
export interface CaseSettings {
  readonly heads: number;
  readonly mlp_ratio: number;
  readonly image: number;
  readonly batch: number;
  readonly taps: readonly number[];
  readonly fuse_layer_encoder: readonly (readonly number[])[];
  readonly fuse_layer_decoder: readonly (readonly number[])[];
  readonly INP_num: number;
  readonly extractor_blocks: number;
  readonly decoder_blocks: number;
  readonly map_size: number;
  readonly top_pixels: number;
  readonly lambda_Lc: number;
  readonly hook_power: number;
  readonly optim: OptimizerRecord & {
    readonly betas: readonly [number, number];
    readonly eps: number;
    readonly weight_decay: number;
    readonly clip_threshold: number;
    readonly grad_clip: number;
    readonly base_lr: number;
    readonly final_lr: number;
  };
}

export interface ModelCase {
  readonly settings: CaseSettings;
  readonly config: DetectorConfig;
  readonly objective: ObjectiveOptions;
  readonly encoder: EncoderWeights;
  readonly trainables: ReadonlyMap<string, Float32Array>;
  readonly forward: Map<string, GoldenTensor>;
}

/** Folders of the golden set that hold a whole synthetic model (`tiny`, `odd` and whatever else is there). */
export function modelCases(): string[] {
  const root = goldenFolder()!;
  const cases = readdirSync(root).filter((name) => existsSync(join(root, name, 'forward.safetensors'))).sort();
  if (cases.length === 0) throw new Error(`${root} holds no whole-model case: no folder has a forward.safetensors.`);
  return cases;
}

/**
 * A file of the folder that the golden set lies in, e.g. `weights/encoder.safetensors`, or of the default set's, where a set
 * that was put elsewhere did not bring it along.
 */
export function besideGolden(path: string): string {
  const candidates = [join(goldenFolder()!, '..'), join(projectRoot, '../shared')].map((folder) => resolve(folder, path));
  const found = candidates.find((file) => existsSync(file));
  if (!found) throw new Error(`The golden set needs ${path}; it is neither at ${candidates.join(' nor at ')}.`);
  return found;
}

/** Everything of a synthetic case but its gradients and optimiser steps. */
export async function loadModelCase(name: string): Promise<ModelCase> {
  const settings = goldenJson<CaseSettings & Record<string, unknown>>(`${name}/config.json`);
  const encoder = await loadEncoderWeights(readGolden(`${name}/encoder.safetensors`), { name, architecture: { numHeads: settings.heads, mlpRatio: settings.mlp_ratio } });
  const config: DetectorConfig = {
    ...detectorConfig({
      architecture: encoder.architecture, crop: settings.image, taps: settings.taps,
      encoderGroups: settings.fuse_layer_encoder, decoderGroups: settings.fuse_layer_decoder,
      numPrototypes: settings.INP_num, extractorDepth: settings.extractor_blocks, decoderDepth: settings.decoder_blocks,
    }),
    mlpRatio: settings.mlp_ratio,
  };
  // What the engine fixes and the case states must agree, or the comparison would be of two different models.
  const { width, depth, patchSize, numRegisters, positionGrid } = encoder.architecture;
  expect({
    C: width, depth, patch: patchSize, registers: numRegisters, pos_grid: positionGrid[0], tokens_side: tokenGrid(config).rows,
    encoder_ln_eps: encoderEpsilon, head_ln_eps: headEpsilon, decoder_reversed_before_grouping: true, antialias: false, interpolate_offset: 0.1,
    gaussian: { kernel: 5, sigma: 4, pad: 'zero' }, top_pixels: Math.floor(0.01 * settings.map_size ** 2),
  }).toEqual(Object.fromEntries([
    'C', 'depth', 'patch', 'registers', 'pos_grid', 'tokens_side', 'encoder_ln_eps', 'head_ln_eps', 'decoder_reversed_before_grouping', 'antialias',
    'interpolate_offset', 'gaussian', 'top_pixels',
  ].map((key) => [key, settings[key]])));
  const { betas: [beta1, beta2], eps, weight_decay, clip_threshold, grad_clip } = settings.optim;
  expect({ beta1, beta2, epsilon: eps, weightDecay: weight_decay, clipNorm: grad_clip, clipThreshold: clip_threshold }).toEqual(stableAdamWDefaults);

  const model = goldenTensors(`${name}/model.safetensors`);
  expect([...model.keys()].sort()).toEqual([...trainableShapes(config).keys()].sort());
  return {
    settings, config, encoder,
    objective: { coherenceWeight: settings.lambda_Lc, miningPower: settings.hook_power },
    trainables: new Map([...trainableShapes(config)].map(([tensor, shape]) => {
      expect(model.get(tensor)!.shape, tensor).toEqual([...shape]);
      return [tensor, float32(model, tensor)];
    })),
    forward: goldenTensors(`${name}/forward.safetensors`),
  };
}

/** Compiles and runs a graph once; `memories` hold its parameters. */
export async function runGraph(
  outputs: Record<string, Tensor>, inputs: Record<string, TensorData>, memories: readonly { readonly tensors: ReadonlyMap<string, DeviceTensor> }[], target?: Target,
): Promise<Record<string, TensorData>> {
  const context = await testContext();
  const plan = compile({ target: target ?? context.target, outputs });
  const executable = await Executable.prepare(context, plan, new Map(memories.flatMap((m) => [...m.tensors])));
  try {
    return await executable.run(inputs);
  } finally {
    executable.dispose();
  }
}

/** Gradients of a scalar by each of the named tensors. */
export function gradientsOf(loss: Tensor, wanted: Record<string, Tensor>): Record<string, Tensor> {
  const one = constant('one', [1], Float32Array.of(1));
  const names = Object.keys(wanted);
  const found = scope('backward', () => differentiate([{ tensor: loss, gradient: one }], names.map((name) => wanted[name]!), add));
  return Object.fromEntries(names.map((name, i) => [name, found[i]!]));
}

/** Gradients of the loss by every trained tensor, `param.NAME`, and by the tensors of `others`. */
export function modelGradients(loss: Tensor, p: ParameterLeaves, others: Record<string, Tensor>): { byTensor: Record<string, Tensor>; ofLeaf: (name: string) => Tensor } {
  const found = gradientsOf(loss, { ...Object.fromEntries(p.all().map((leaf) => [leaf.name, leaf])), ...others });
  const ofLeaf = (name: string): Tensor => found[name]!;
  const params = [...p.byName((leaf) => ofLeaf(leaf.name))].map(([name, gradient]) => [`param.${name}`, gradient]);
  return { byTensor: { ...Object.fromEntries(params), ...Object.fromEntries(Object.keys(others).map((name) => [name, ofLeaf(name)])) }, ofLeaf };
}

/** Per image, its feature tensors [N, C] one after another, as the feature cache holds them; from [B, N, C] tensors. */
export function featuresPerImage(tensors: readonly TensorData[], batchSize: number): Float32Array[] {
  return Array.from({ length: batchSize }, (_, b) => {
    const parts = tensors.map((t) => (t as Float32Array).subarray((b * t.length) / batchSize, ((b + 1) * t.length) / batchSize));
    const image = new Float32Array(parts.reduce((sum, p) => sum + p.length, 0));
    let at = 0;
    for (const part of parts) {
      image.set(part, at);
      at += part.length;
    }
    return image;
  });
}

/** The inverse of {@link featuresPerImage} for a training graph's inputs `features.<tensor>.<slice>`. */
export function sliceInputs(images: readonly Float32Array[], slices: readonly number[], tensors: number): Record<string, Float32Array> {
  const inputs: Record<string, Float32Array> = {};
  let first = 0;
  slices.forEach((size, s) => {
    const slice = images.slice(first, first + size);
    first += size;
    for (let i = 0; i < tensors; i++) {
      inputs[`features.${i}.${s}`] = Float32Array.from(slice.flatMap((image) =>
        [...image.subarray((i * image.length) / tensors, ((i + 1) * image.length) / tensors)]));
    }
  });
  return inputs;
}

/** A target that binds no more than the largest trained tensor or stack of them, so that batches are cut into as many slices as that allows. */
export function narrowTarget(config: DetectorConfig, target: Target): Target {
  const largest = Math.max(...trainableItems(config).map(([, bytes]) => bytes));
  return { ...target, maxStorageBufferBindingSize: Math.ceil(largest / 256) * 256 };
}

/**
 * How many leading entries of a trained tensor are the softmax's key bias. They shift a row's logits alike, so their true
 * gradient is 0, and float32 leaves noise there that the optimiser blows up: they are left out of comparisons.
 */
export function keyBiasLength(name: string, config: DetectorConfig): number {
  return /^aggregation\.\d+\.attn\.kv\.bias$/.test(name) ? config.architecture.width : 0;
}

export const gradientTolerance = { relL2: 1e-4, maxOfRms: 5e-4 };

/** A trained tensor's gradient: within the tolerance, and nothing but rounding noise where it is zero. */
export function expectGradient(name: string, actual: TensorData, expected: Float32Array, config: DetectorConfig): void {
  const zeros = keyBiasLength(name, config);
  expectClose(actual.subarray(zeros), expected.subarray(zeros), { ...gradientTolerance, name: `gradient of ${name}` });
  expect(maxAbsDifference(actual.subarray(0, zeros), new Float32Array(zeros)), `gradient of the key bias in ${name}`).toBeLessThanOrEqual(1e-6);
}

/** A free-running optimiser's parameters: how far its whole update is from the expected one, over all tensors together. */
export function expectUpdate(
  name: string, initial: ReadonlyMap<string, Float32Array>, actual: ReadonlyMap<string, Float32Array>, expected: ReadonlyMap<string, Float32Array>, config: DetectorConfig,
): void {
  const updates: number[] = [];
  const errors: number[] = [];
  for (const [tensor, start] of initial) {
    const [is, shouldBe] = [actual.get(tensor)!, expected.get(tensor)!];
    expect(is.length, tensor).toBe(start.length);
    for (let i = keyBiasLength(tensor, config); i < start.length; i++) {
      updates.push(shouldBe[i]! - start[i]!);
      errors.push(Math.abs(is[i]! - shouldBe[i]!));
    }
  }
  expect(rms(errors), `${name}: rms of the update's error, of an update of ${rms(updates)}`).toBeLessThanOrEqual(1e-3 * rms(updates));
  errors.sort((a, b) => a - b);
  expect(errors[Math.ceil(0.99 * errors.length) - 1]!, `${name}: 99th percentile of the update's error`).toBeLessThanOrEqual(1e-6);
}
