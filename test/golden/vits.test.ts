/**
 * Golden set, the real encoder: DINOv2 ViT-S/14 on photographs, from the image file to map and score, and five training
 * steps on the features, against the reference implementation. The heads' weights are made by the set's recipe. Each
 * expensive plan runs once, and the tests share its results.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { preprocess, resizeAndCrop } from '../../src/data/preprocess.ts';
import type { DeviceMemory } from '../../src/gpu/memory.ts';
import { sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { detectorConfig, type DetectorConfig } from '../../src/model/config.ts';
import { inspectionGraph, trainingGraph } from '../../src/model/graphs.ts';
import { ImageStage, imagesLeaf } from '../../src/model/image-stage.ts';
import { uploadEncoder, uploadTrainables } from '../../src/model/memory.ts';
import { trainableShapes } from '../../src/model/parameters.ts';
import { decodeImageFile } from '../../src/node/images.ts';
import { coherence, mean } from '../../src/ops/index.ts';
import { TrainingStep } from '../../src/train/step.ts';
import { loadEncoderWeights, type EncoderWeights } from '../../src/weights/encoder.ts';
import { describeGolden, expectClose, float32, goldenFolder, goldenJson, goldenTensors, maxAbsDifference, rms } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';
import { besideGolden, featuresPerImage, keyBiasLength, runGraph, sliceInputs, type OptimizerRecord } from '../support/model.ts';

/** A software adapter takes half a minute for one of the plans here. */
const patience = 900_000;
const tolerance = { relL2: 2e-5 };
const mapTolerance = { relL2: 2e-5, maxAbs: 1e-5 };
const lossTolerance = 5e-6;

interface Settings {
  readonly salt: string;
  readonly cases: Readonly<Record<string, CaseSettings>>;
  readonly trainable_tensors: Readonly<Record<string, { shape: number[]; seed: number; first: number[]; last: number; sum: number }>>;
  readonly train: OptimizerRecord & { readonly grad_l2_norm: Readonly<Record<string, number>> };
}

interface CaseSettings {
  readonly resize: number;
  readonly crop: number;
  readonly tokens: number;
  readonly token_stride: Readonly<Record<'en' | 'de' | 'tap' | 'tokens' | 'bottleneck', number>>;
  readonly top_pixels: number;
  readonly mean_std_absmax: Readonly<Record<string, [number, number, number]>>;
  readonly images: readonly {
    readonly file: string; readonly mode: string; readonly width: number; readonly height: number;
    readonly decoded_sha256: string; readonly resized_rgb_sha256: string; readonly input_sum: number;
  }[];
}

describeGolden('vits', () => {
  const settings = goldenJson<Settings>('vits/config.json');
  const trainables = new Map(Object.entries(settings.trainable_tensors).map(([name, { shape }]) => [name, makeTrainable(settings.salt, name, sizeOf(shape))]));
  let encoder: EncoderWeights;
  let trainableMemory: DeviceMemory;

  /** The reference's defaults, with the sizes that the trained tensors have. */
  function configFor(crop: number): DetectorConfig {
    const names = Object.keys(settings.trainable_tensors);
    const depth = (prefix: string) => new Set(names.flatMap((name) => new RegExp(`^${prefix}\\.(\\d+)\\.`).exec(name)?.[1] ?? [])).size;
    return detectorConfig({
      architecture: encoder.architecture, crop, numPrototypes: settings.trainable_tensors['prototype_token']!.shape[0]!,
      extractorDepth: depth('aggregation'), decoderDepth: depth('decoder'),
    });
  }

  beforeAll(async () => {
    encoder = await loadEncoderWeights(new Uint8Array(await readFile(besideGolden('weights/dinov2_vits14.safetensors'))), { name: 'dinov2_vits14' });
    const config = configFor(encoder.architecture.patchSize);
    expect(Object.fromEntries([...trainableShapes(config)].map(([name, shape]) => [name, [...shape]])))
      .toEqual(Object.fromEntries(Object.entries(settings.trainable_tensors).map(([name, { shape }]) => [name, shape])));
    trainableMemory = await uploadTrainables(await testContext(), trainables, config);
  }, patience);

  afterAll(() => trainableMemory?.dispose());

  test('the trained tensors made by the recipe are those of the set', () => {
    for (const [name, { seed, first, last, sum }] of Object.entries(settings.trainable_tensors)) {
      const values = trainables.get(name)!;
      expect(fnv1a(`${settings.salt}/${name}`), name).toBe(seed);
      expect([...values.subarray(0, first.length)], name).toEqual(first);
      expect(values.at(-1), name).toBe(last);
      expect(values.reduce((a, b) => a + b, 0), name).toBeCloseTo(sum, 8);
    }
  });

  describe.each(Object.entries(settings.cases))('%s', (name, options) => {
    const golden = goldenTensors(`vits/${name}.safetensors`);
    const batch = options.images.length;
    let config: DetectorConfig;
    let decoded: RasterImage[];
    let results: Record<string, TensorData>;

    beforeAll(async () => {
      config = configFor(options.crop);
      const context = await testContext();
      decoded = await Promise.all(options.images.map(({ file }) => decodeImageFile(besideGolden(file.replace(/^shared\//, '')))));
      const size = { width: options.resize, height: options.resize };
      const stage = await ImageStage.create(context, { resize: size, crop: config.crop, batchSize: batch });
      const encoderMemory = await uploadEncoder(context, encoder, config);
      try {
        for (let i = 0; i < batch; i++) await stage.load(source(i), i);
        const images = imagesLeaf(batch, config.crop);
        const mapSize = golden.get('map')!.shape.at(-1)!;
        expect(options.top_pixels).toBe(Math.floor(0.01 * mapSize ** 2));
        const { features, reconstruction, scoring } = inspectionGraph(images, config, mapSize);
        const near = coherence(features.fused, reconstruction.prototypes!);
        const outputs: Record<string, Tensor> = {
          images, tokens: features.tokens, P: reconstruction.prototypes!, bottleneck: reconstruction.bottleneck,
          distance: near.distance, index: near.index, distances: near.all, Lc: mean(near.distance), map: scoring.map, score: scoring.score,
        };
        features.blocks.forEach((t, i) => { outputs[`tap.${i}`] = t; });
        features.groups.forEach((t, g) => { outputs[`en${g}`] = t; });
        reconstruction.groups.forEach((t, g) => { outputs[`de${g}`] = t; });
        scoring.tokenMaps.forEach((t, g) => { outputs[`cosmap${g}`] = t; });
        results = await runGraph(outputs, {}, [stage, encoderMemory, trainableMemory]);
      } finally {
        encoderMemory.dispose();
        stage.dispose();
      }
    }, patience);

    /** The image's pixels: the set's own where decoders differ. */
    function source(i: number): RasterImage {
      return stored(`image${i}.decoded_u8`) ?? decoded[i]!;
    }

    function stored(key: string): RasterImage | undefined {
      const tensor = golden.get(key);
      return tensor && { width: tensor.shape[1]!, height: tensor.shape[0]!, channels: (tensor.shape[2] ?? 1) as 1 | 3, data: tensor.data as Uint8Array };
    }

    test('image files to the encoder\'s input', () => {
      options.images.forEach(({ file, mode, width, height, decoded_sha256, resized_rgb_sha256, input_sum }, i) => {
        const image = decoded[i]!;
        expect([image.width, image.height], file).toEqual([width, height]);
        const bytes = mode === 'L' ? image.data.filter((_, j) => j % image.channels === 0) : image.data;
        const reference = stored(`image${i}.decoded_u8`);
        // A JPEG decoder may round otherwise than the reference's, by a level here and there.
        if (reference) expect(maxAbsDifference(bytes, reference.data), file).toBeLessThanOrEqual(2);
        else expect(sha256(bytes), file).toBe(decoded_sha256);
        const { resize, crop } = options;
        expect(sha256(resizeAndCrop(source(i), { resize, crop: resize }).data), file).toBe(resized_rgb_sha256);
        const pixels = stored(`image${i}.resized_u8`) ?? source(i);
        const count = results.images!.length / batch;
        const ours = results.images!.subarray(i * count, (i + 1) * count);
        expect(maxAbsDifference(ours, preprocess(pixels, { resize, crop })), file).toBe(0);
        expectClose([sum(ours)], [input_sum], { maxAbs: 1e-7 * count, name: `sum of the input of ${file}` });
      });
    });

    test('every stored tensor', () => {
      const checked = [...golden.keys()].filter((key) => !key.startsWith('image') && key !== 'index').sort();
      expect(checked).toEqual(Object.keys(results).filter((key) => !['images', 'index', 'distances'].includes(key)).sort());
      for (const key of checked) {
        const expected = float32(golden, key);
        if (key === 'Lc' || key === 'score') expectClose(results[key]!, expected, { maxAbs: lossTolerance, name: key });
        else if (/^(map|distance|cosmap\d+)$/.test(key)) expectClose(results[key]!, expected, { ...mapTolerance, name: key });
        else {
          const kind = key.replace(/\.?\d+$/, '');
          const stride = (options.token_stride as Record<string, number>)[kind] ?? 1;
          expectClose(everyToken(results[key]!, stride, batch, encoder.architecture.width), expected, { ...tolerance, name: key });
        }
      }
    });

    test('mean, deviation and largest magnitude of the whole tensors', () => {
      for (const [key, [average, deviation, largest]] of Object.entries(options.mean_std_absmax)) {
        const values = results[key]!;
        const close = tolerance.relL2 * rms(values);
        const ours = sum(values) / values.length;
        expectClose([ours, rms(values.map((v) => v - ours))], [average, deviation], { maxAbs: close, name: `mean and deviation of ${key}` });
        expectClose([maxAbsDifference(values, new Float32Array(values.length))], [largest], { relL2: tolerance.relL2, name: `largest magnitude of ${key}` });
      }
    });

    test('nearest prototypes, where the second is not as near', () => {
      const { index, distances } = results as { index: TensorData; distances: TensorData };
      const expected = golden.get('index')!.data;
      const prototypes = distances.length / index.length;
      const clear = [...expected.keys()].filter((i) => {
        const [best, second] = [...distances.subarray(i * prototypes, (i + 1) * prototypes)].sort((a, b) => a - b);
        return second! - best! > 1e-5;
      });
      expect(clear.length).toBeGreaterThan(0.9 * expected.length);
      expect(clear.map((i) => index[i])).toEqual(clear.map((i) => expected[i]));
    });

    // The recorded training runs on the images of one of the cases.
    if (!existsSync(join(goldenFolder()!, `vits/${name}_train.safetensors`))) return;
    describe('training', () => {
      const { train } = settings;
      const samples = goldenTensors(`vits/${name}_train.safetensors`);
      const features = (): Float32Array[] => featuresPerImage(config.encoderGroups.map((_, g) => results[`en${g}`]!), batch);

      function expectSample(key: string, actual: TensorData, relL2: number): void {
        const tensor = key.slice(key.indexOf('.') + 1);
        const stride = Math.max(1, Math.floor(actual.length / 64));
        const zeros = Math.ceil(keyBiasLength(tensor, config) / stride);
        const expected = float32(samples, key);
        expectClose(expected.map((_, i) => actual[i * stride]!).subarray(zeros), expected.subarray(zeros), { relL2, name: key });
      }

      test('losses and gradients of the first step, the batch in slices', async () => {
        const { target } = await testContext();
        const { slices, objective, gradients, norm } = trainingGraph(config, batch, target, { slices: [Math.floor(batch / 2), Math.ceil(batch / 2)] });
        const values = await runGraph(
          { loss: objective.loss, cosine: objective.cosine, coherence: objective.coherence!, norm, ...Object.fromEntries(gradients) },
          sliceInputs(features(), slices, config.encoderGroups.length), [trainableMemory],
        );
        const losses = [values.loss![0]!, values.cosine![0]!, values.coherence![0]!];
        expectClose(losses, [train.loss_total[0]!, train.loss_cos[0]!, train.loss_Lc[0]!], { maxAbs: lossTolerance, name: 'losses' });
        expectRelative(values.norm![0]!, train.grad_norm[0]!, 1e-4, 'gradient norm');
        for (const tensor of trainables.keys()) {
          const gradient = values[tensor] as Float32Array;
          const zeros = keyBiasLength(tensor, config);
          expect(maxAbsDifference(gradient.subarray(0, zeros), new Float32Array(zeros)), tensor).toBeLessThanOrEqual(1e-6);
          expectSample(`grad.${tensor}`, gradient, 1e-4);
          expectRelative(Math.sqrt(gradient.length) * rms(gradient), train.grad_l2_norm[tensor]!, 1e-4, `norm of the gradient of ${tensor}`);
        }
      }, patience);

      test('five steps', async () => {
        const step = await TrainingStep.create(await testContext(), config, batch, { values: new Map(trainables) });
        try {
          for (const [i, lr] of train.lr.entries()) {
            const { loss, cosine, coherence: Lc, norm } = await step.run(features(), i + 1, lr);
            const early = i < 2;
            [[loss, train.loss_total[i]!], [cosine, train.loss_cos[i]!], [Lc, train.loss_Lc[i]!]].forEach(([ours, expected]) => {
              if (early) expectClose([ours!], [expected!], { maxAbs: 1e-5, name: `loss of step ${i + 1}` });
              else expectRelative(ours!, expected!, 2e-4, `loss of step ${i + 1}`);
            });
            expectRelative(norm, train.grad_norm[i]!, early ? 1e-4 : 2e-3, `gradient norm of step ${i + 1}`);
          }
          expect(step.submits).toBe(train.lr.length);
          const last = `step${train.lr.length}`;
          for (const [tensor, values] of (await step.readState()).values) expectSample(`${last}.${tensor}`, values, 5e-3);
        } finally {
          step.dispose();
        }
      }, patience);
    });
  });
});

function sum(values: TensorData): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** Every stride-th token of each image of [batch, T, width], from the first. */
function everyToken(values: TensorData, stride: number, batch: number, width: number): Float32Array {
  const tokens = values.length / (batch * width);
  const kept = Array.from({ length: batch * tokens }, (_, i) => i).filter((i) => (i % tokens) % stride === 0);
  return Float32Array.from(kept.flatMap((i) => [...values.subarray(i * width, (i + 1) * width)]));
}

function expectRelative(actual: number, expected: number, relative: number, name: string): void {
  expectClose([actual], [expected], { relL2: relative, name });
}

function sha256(bytes: Uint8Array | Uint8ClampedArray): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** FNV-1a, 32 bits, of the text's UTF-8 bytes. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** The set's recipe for a trained tensor: layer norms 1 and 0, learn_scale 1, all else uniform from mulberry32 seeded by the name. */
function makeTrainable(salt: string, name: string, length: number): Float32Array {
  if (/norm\d\.bias$/.test(name)) return new Float32Array(length);
  if (/norm\d\.weight$|learn_scale$/.test(name)) return new Float32Array(length).fill(1);
  const bound = name === 'prototype_token' ? 1 : 0.03;
  let state = fnv1a(`${salt}/${name}`);
  return new Float32Array(length).map(() => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return -bound + 2 * bound * (((t ^ (t >>> 14)) >>> 0) / 4294967296);
  });
}
