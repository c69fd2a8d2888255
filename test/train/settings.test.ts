// Few-shot, zero-shot, memory and ablations from images to inspections, on a model so small that each takes seconds.
import { afterAll, describe, expect, it } from 'vitest';
import { Engine } from '../../src/engine.ts';
import { UsageError } from '../../src/errors.ts';
import { exportOnnx } from '../../src/export/onnx.ts';
import { Inspector } from '../../src/inspect/inspector.ts';
import { ablate, findVariants } from '../../src/train/ablation.ts';
import { trainInspector } from '../../src/train/entry.ts';
import type { TrainOptions } from '../../src/train/train.ts';
import { readSafetensors } from '../../src/weights/safetensors.ts';
import { testGpu } from '../support/gpu.ts';
import { drawnImage, drawnSources, smallEncoder } from '../support/small-encoder.ts';

const encoder = await smallEncoder();
const engine = await Engine.create({ gpu: await testGpu() });
afterAll(() => engine.dispose());

const looked = new Set<string>();
const images = drawnSources(6).map((source, i) => ({
  ...source, category: i < 3 ? 'a' : 'b',
  load: () => {
    looked.add(source.name);
    return source.load();
  },
}));

async function train(options: Partial<TrainOptions>) {
  const { inspector, ...result } = await trainInspector(engine, { encoder, images, resize: 64, crop: 56, batchSize: 4, steps: 2, warmupSteps: 1, decoderDepth: 2, numPrototypes: 3, ...options });
  const { metadata } = inspector;
  inspector.dispose();
  return { ...result, metadata };
}

const open = (model: Uint8Array, mode?: 'zero-shot') => Inspector.open(engine, model, encoder, mode ? { mode } : {});

describe('few-shot training', () => {
  it('looks at the shots alone, in all their views, and says what its threshold comes from', async () => {
    looked.clear();
    const { metadata, record } = await train({ shots: 1 });
    expect(looked.size).toBe(2);
    expect(metadata.training).toMatchObject({ images: 44, shots: 1, batchSize: 4 });
    expect(record.losses).toHaveLength(2);
    expect(metadata.calibration.rule).toMatch(/32 views of the 2 shots that were not trained on \(margins widened 1.5 times\)/);
  });

  it('takes calibration images that it is given', async () => {
    const { metadata } = await train({ shots: 1, calibrationImages: drawnSources(9).slice(7).map((source, i) => ({ ...source, category: 'ab'[i]! })) });
    expect(metadata.calibration.rule).toMatch(/2 normal images held out of training/);
  });
});

describe('a memory', () => {
  it('finds its own images at distance 0, others further, in the same kind of file', async () => {
    const { model, metadata, record } = await train({ method: 'memory', shots: 2 });
    expect(metadata).toMatchObject({ method: 'memory', memoryRows: 4 * 8 * 16, training: { shots: 2, images: 32, steps: 0 } });
    expect(metadata.calibration.rule).toMatch(/4 shots, each judged by a memory without it/);
    expect(record.steps).toBe(0);
    expect([...readSafetensors(model).tensors.keys()]).toEqual(['memory.0.0', 'memory.1.0']);
    const shots = images.filter(({ name }) => looked.has(name));
    expect(shots.length).toBeGreaterThan(0);
    const inspector = await open(model);
    const scores = await Promise.all(images.map(async (image) => (await inspector.inspect(await image.load())).score));
    expect(scores.filter((score) => score < 1e-5)).toHaveLength(4);
    expect((await inspector.inspect(drawnImage('other'))).score).toBeGreaterThan(1e-3);
    inspector.dispose();
  });

  it('keeps as many rows as it is told, and gives the same bytes again', async () => {
    const first = await train({ method: 'memory', memoryRows: 50 });
    const second = await train({ method: 'memory', memoryRows: 50 });
    expect(first.metadata.memoryRows).toBe(50);
    expect(second.model).toEqual(first.model);
  });

  it('is not exported, and has no zero-shot mode', async () => {
    const { model } = await train({ method: 'memory', memoryRows: 10 });
    await expect(exportOnnx({ model, encoder })).rejects.toThrow(/memory of normal features[^]*no ONNX form/);
    await expect(open(model, 'zero-shot')).rejects.toThrow(UsageError);
  });
});

describe('zero-shot inspection', () => {
  it('gives scores and maps without a verdict, until it is given a threshold', async () => {
    const { model, metadata } = await train({ coherence: 'soft', mining: false });
    expect(metadata.training).toMatchObject({ coherence: 'soft', mining: false });
    const zeroShot = await open(model, 'zero-shot');
    const trained = await open(model);
    expect(zeroShot.calibration).toEqual(metadata.zeroShotCalibration);
    expect(trained.calibration).toEqual(metadata.calibration);
    const image = drawnImage('a thing that was never seen');
    const unjudged = await zeroShot.inspect(image);
    expect(unjudged).toMatchObject({ verdict: 'unjudged', threshold: NaN, regions: [] });
    expect(unjudged.mask.every((v) => v === 0)).toBe(true);
    expect(unjudged.score).toBeGreaterThan(0);
    expect(unjudged.score).not.toBe((await trained.inspect(image)).score);
    zeroShot.threshold = unjudged.score / 2;
    expect(await zeroShot.inspect(image)).toMatchObject({ verdict: 'defective', score: unjudged.score });
    zeroShot.dispose();
    trained.dispose();
  });
});

describe('ablations', () => {
  const tests = [...drawnSources(2).map((source) => ({ source, label: 0 as const })), { source: { name: 'bad', load: async () => drawnImage('bad') }, label: 1 as const }];

  it('are trained alike and measured, and their files remember what they are', async () => {
    const results = [];
    for await (const result of ablate(engine, { encoder, images, tests, resize: 64, crop: 56, batchSize: 3, steps: 2, warmupSteps: 1, decoderDepth: 2, variants: ['base', 'self-attention-residual'] })) results.push(result);
    expect(results.map(({ name }) => name)).toEqual(['base', 'self-attention-residual']);
    for (const { evaluation, falsePositiveRate, missRate } of results) {
      expect(evaluation).toMatchObject({ images: 3, defectiveImages: 1 });
      expect([falsePositiveRate, missRate].every((rate) => rate !== null && rate >= 0 && rate <= 1)).toBe(true);
    }
    expect(results[1]!.trainedValues).toBeLessThan(results[0]!.trainedValues);
    const { model } = results[1]!;
    expect(Inspector.readMetadata(model)).toMatchObject({ decoder: 'self-attention', residual: true });
    await expect(exportOnnx({ model, encoder })).rejects.toThrow(/decoder self-attention/);
    await expect(open(model, 'zero-shot')).rejects.toThrow(/decoder is self-attention/);
  });

  it('of an unknown name, or that the crop has no room for, are refused before anything is trained', async () => {
    expect(() => findVariants(['base', 'bse'])).toThrow(/no variant bse: there are base, /);
    await expect(ablate(engine, { encoder, images, tests, resize: 64, crop: 56, variants: ['neighbour-masked'] }).next()).rejects.toThrow(/below 4/);
  });
});
