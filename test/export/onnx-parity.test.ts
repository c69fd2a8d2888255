// An exported model in another runtime: onnxruntime-web's wasm back end, which shares nothing with this engine, must come
// to the map and score of the inspector, from images that are prepared as the file says.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { preprocess, toSize } from '../../src/data/preprocess.ts';
import { Engine } from '../../src/engine.ts';
import { exportOnnx } from '../../src/export/onnx.ts';
import { Inspector } from '../../src/inspect/inspector.ts';
import { loadEncoderWeights, type EncoderWeights } from '../../src/weights/encoder.ts';
import { testGpu } from '../support/gpu.ts';
import { randomModel, type RandomModelOptions } from '../support/model-file.ts';
import { projectRoot } from '../support/modules.ts';
import { OnnxRun } from '../support/onnxruntime.ts';
import { drawnImage, smallArchitecture, smallEncoder } from '../support/small-encoder.ts';

const engine = await Engine.create({ gpu: await testGpu() });
afterAll(() => engine.dispose());

const tinyEncoder = () => loadEncoderWeights(new Uint8Array(readFileSync(join(projectRoot, 'weights/tiny/tiny_vit14.safetensors'))), { name: 'tiny' });

const cases: [string, () => Promise<EncoderWeights>, RandomModelOptions][] = [
  ['the embedded encoder', tinyEncoder, { resize: 64, crop: 56 }],
  ['registers, taps in no or two groups, few and odd prototypes, two extractor blocks', smallEncoder, {
    resize: 42, crop: 42, taps: [0, 1, 3], encoderGroups: [[0, 1], [1]], decoderGroups: [[0, 2], [1]], numPrototypes: 5, extractorDepth: 2, decoderDepth: 3,
  }],
  ['no registers, no layer scale, one group, a single token, a small map', () => smallEncoder('plain', { ...smallArchitecture, numRegisters: 0, layerScale: false }), {
    resize: 20, crop: 14, taps: [2], numPrototypes: 1, decoderDepth: 1, mapSize: 31,
  }],
  ['INP-Former++ with its segmentation head', smallEncoder, { resize: 48, crop: 42, decoderDepth: 2, mapSize: 64, distance: 'cosine+l2', segmentationHead: true }],
  ['the same on a wide crop and map', smallEncoder, { resize: { width: 90, height: 50 }, crop: { width: 84, height: 28 }, mapSize: { width: 96, height: 32 }, decoderDepth: 2, distance: 'cosine+l2', segmentationHead: true }],
  ['a wide crop and map', smallEncoder, { resize: { width: 90, height: 50 }, crop: { width: 84, height: 28 }, mapSize: { width: 96, height: 32 }, decoderDepth: 2 }],
];

describe.each(cases)('%s', (_, encoderOf, options) => {
  test('the same map and score in both runtimes, one image or several', async () => {
    const { crop, resize, mapSize = 256 } = options;
    const [input, output] = [toSize(crop), toSize(mapSize)];
    const area = output.width * output.height;
    const encoder = await encoderOf();
    const model = randomModel(encoder, options);
    const images = [0, 1, 2].map((i) => drawnImage(`onnx ${i}`, { width: 60 + i, height: 70 }));
    const inspector = await Inspector.open(engine, model, encoder, { batchSize: images.length });
    const expected = await inspector.inspectBatch(images);
    inspector.dispose();

    const onnx = await OnnxRun.open(await exportOnnx({ model, encoder }));
    expect(onnx.inputs).toMatchObject([{ name: 'image', type: 'float32', shape: ['batch', 3, input.height, input.width] }]);
    expect(onnx.outputs).toMatchObject([{ name: 'map', type: 'float32', shape: ['batch', 1, output.height, output.width] }, { name: 'score', type: 'float32', shape: ['batch'] }]);
    const pixels = images.map((image) => preprocess(image, { resize, crop }));
    for (const batch of [[0], [2, 0, 1]]) {
      const data = new Float32Array(batch.length * 3 * input.height * input.width);
      batch.forEach((i, slot) => data.set(pixels[i]!, slot * 3 * input.height * input.width));
      const { map, score } = await onnx.run({ image: { data, shape: [batch.length, 3, input.height, input.width] } });
      expect(map!.dims).toEqual([batch.length, 1, output.height, output.width]);
      expect(score!.dims).toEqual([batch.length]);
      for (const [slot, i] of batch.entries()) {
        const theirs = map!.data.subarray(slot * area, (slot + 1) * area);
        const { map: ours, score: ourScore } = expected[i]!;
        const [low, high] = ours.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)] as const, [Infinity, -Infinity] as const);
        const difference = ours.reduce((most, value, at) => Math.max(most, Math.abs(value - theirs[at]!)), 0);
        // A map of one token is flat inside: its range comes from the blur's zero padding.
        expect(high - low).toBeGreaterThan(0.02);
        expect(difference, `largest difference of map ${i}, of a range of ${high - low}`).toBeLessThanOrEqual(1e-5 * (high - low));
        expect(Math.abs(score!.data[slot]! - ourScore), `score ${i}`).toBeLessThanOrEqual(1e-5 * (high - low));
      }
    }
    await onnx.close();
  });
});

test('a fixed batch size is in the file, and another is refused by the runtime', async () => {
  const encoder = await smallEncoder();
  const model = randomModel(encoder, { resize: 28, crop: 28, taps: [0], decoderDepth: 1 });
  const onnx = await OnnxRun.open(await exportOnnx({ model, encoder, batchSize: 2 }));
  expect(onnx.inputs[0]!.shape).toEqual([2, 3, 28, 28]);
  expect(onnx.outputs.map(({ shape }) => shape)).toEqual([[2, 1, 256, 256], [2]]);
  const image = (count: number) => ({ image: { data: new Float32Array(count * 3 * 28 * 28), shape: [count, 3, 28, 28] } });
  expect((await onnx.run(image(2))).score!.dims).toEqual([2]);
  await expect(onnx.run(image(1))).rejects.toThrow(/dimension/i);
  await onnx.close();
});
