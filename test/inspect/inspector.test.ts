// A detector at work: a batch gives the very numbers that its images give alone, an image is one submit, and what can't
// be inspected is refused by name.
import { afterAll, describe, expect, it, vi } from 'vitest';
import { Engine } from '../../src/engine.ts';
import { EncoderMismatchError, InputError, UsageError } from '../../src/errors.ts';
import { regionLevel } from '../../src/inspect/pixel-level.ts';
import { Inspector, type Inspection } from '../../src/inspect/inspector.ts';
import { writeModel, type ModelMetadata } from '../../src/inspect/model-file.ts';
import { detectorConfig, remembered } from '../../src/model/config.ts';
import { initialTrainables } from '../../src/train/trainables.ts';
import { testGpu } from '../support/gpu.ts';
import { drawnImage, smallEncoder } from '../support/small-encoder.ts';

const encoder = await smallEncoder();
const engine = await Engine.create({ gpu: await testGpu() });
afterAll(() => engine.dispose());

const config = detectorConfig({ architecture: encoder.architecture, crop: 56, decoderDepth: 2, distance: 'cosine', segmentationHead: false, numPrototypes: 3 });
const calibration = { threshold: 0.9, pixelThreshold: 0.8, scaleLow: 0.5, scaleHigh: 1.1, count: 4, outliers: 0, scoreMean: 0.7, scoreStd: 0.05, scoreMax: 0.8, scores: [0.6, 0.7, 0.75, 0.8], rule: 'for this test' };
const metadata: ModelMetadata = {
  version: 1, encoder: { name: encoder.name, sha256: encoder.sha256, numHeads: 2, architecture: encoder.architecture },
  resize: 64, crop: 56, mapSize: 256, framing: 'stretch', view: 64, ...remembered(config), calibration,
  training: { images: 7, steps: 8, batchSize: 3, warmupSteps: 2, learningRate: 1e-3, finalLearningRate: 1e-4, seed: 1, finalLoss: 0.7 },
};
const trainables = initialTrainables(config, 1);
for (const [name, values] of trainables) if (/(q|kv|proj|fc\d)\.weight$/.test(name)) values.forEach((v, i) => { values[i] = 10 * v; });
const model = writeModel(trainables, metadata);

const images = [
  drawnImage('a'), drawnImage('b', { width: 200, height: 31 }), drawnImage('c', { width: 40, height: 90, channels: 1 }), drawnImage('d', { width: 64, height: 64, channels: 4 }),
  drawnImage('e', { width: 7, height: 5 }), drawnImage('f', { width: 300, height: 280 }), drawnImage('g', { width: 130, height: 64 }),
];
const open = (batchSize?: number) => Inspector.open(engine, model, encoder, batchSize === undefined ? {} : { batchSize });

describe('batches', () => {
  it('give the numbers of single images, bit for bit, whatever the sizes, the order and the batch', async () => {
    const one = await open();
    const alone = [];
    for (const image of images) alone.push(await one.inspect(image));
    expect(new Set(alone.map((r) => r.score)).size).toBe(images.length);
    expect(await one.inspectBatch(images)).toEqual(alone);
    one.dispose();
    const three = await open(3);
    expect(await three.inspectBatch(images)).toEqual(alone);
    expect((await three.inspectBatch([...images].reverse())).reverse()).toEqual(alone);
    expect(await three.inspect(images[1]!)).toEqual(alone[1]);
    expect(await three.inspectBatch([])).toEqual([]);
    three.dispose();
  });

  it('that overlap take turns', async () => {
    const three = await open(3);
    const expected: Inspection[] = [];
    for (const image of images) expected.push(await three.inspect(image));
    const together = await Promise.all(images.map((_, i) => three.inspectBatch([images[i]!, images[(i + 3) % images.length]!])));
    together.forEach(([first, second], i) => {
      expect(first).toEqual(expected[i]);
      expect(second).toEqual(expected[(i + 3) % images.length]);
    });
    three.dispose();
  });
});

describe('an inspection', () => {
  it('is one submit', async () => {
    const inspector = await open();
    await inspector.inspect(images[0]!);
    const submit = vi.spyOn(engine.context.device.queue, 'submit');
    await inspector.inspect(images[3]!);
    expect(submit).toHaveBeenCalledTimes(1);
    await inspector.inspect(images[1]!); // a size that was not seen before
    expect(submit).toHaveBeenCalledTimes(2);
    submit.mockRestore();
    inspector.dispose();
  });

  it('has a map of anomaly values, whose top 1 % average to the score', async () => {
    const inspector = await open();
    const { score, map, mapWidth, mapHeight, mask } = await inspector.inspect(images[0]!);
    expect([mapWidth, mapHeight, map.length, mask.length]).toEqual([256, 256, 65536, 65536]);
    expect(map.every((v) => v >= 0 && v <= 2)).toBe(true);
    const top = [...map].sort((a, b) => b - a).slice(0, 655);
    expect(score).toBeCloseTo(top.reduce((a, b) => a + b, 0) / 655, 5);
    inspector.dispose();
  });

  it('is judged by the threshold, which can be set but not to nonsense', async () => {
    const inspector = await open();
    expect(inspector.threshold).toBe(calibration.threshold);
    const { score, map } = await inspector.inspect(images[0]!);
    inspector.threshold = score;
    expect(await inspector.inspect(images[0]!)).toMatchObject({ verdict: 'good', threshold: score });
    inspector.threshold = score - 1e-6;
    const defective = await inspector.inspect(images[0]!);
    expect(defective).toMatchObject({ verdict: 'defective', score });
    expect(defective.map).toEqual(map); // the values do not depend on the threshold
    for (const value of [NaN, Infinity, '1' as unknown as number]) expect(() => { inspector.threshold = value; }).toThrow(UsageError);
    expect(inspector.threshold).toBe(score - 1e-6);
    const kept = await Inspector.open(engine, inspector.serialize(), encoder);
    expect([kept.threshold, kept.metadata.calibration.threshold]).toEqual([score - 1e-6, calibration.threshold]);
    kept.threshold = calibration.threshold;
    expect(kept.serialize()).toEqual(model);
    kept.dispose();
    // Every pixel is above a low threshold: then the region is what lies above half of the map's peak.
    inspector.threshold = 0;
    const half = await inspector.inspect(images[5]!);
    const level = regionLevel(half.map, inspector.metadata.calibration, 0);
    const peak = Math.max(...half.map);
    expect(half.mask.every((m, i) => m === 0 || half.map[i]! > level)).toBe(true);
    expect(half.mask[half.map.indexOf(peak)]).toBe(1);
    expect(half.regions[0]!.peak).toBe(peak);
    inspector.dispose();
  });

  it('is judged by the category, where the model has several', async () => {
    const own = { ...calibration, threshold: 0.2, pixelThreshold: 0.15, scaleHigh: 0.4 };
    const unified = writeModel(trainables, { ...metadata, categories: [{ name: 'screw', images: 3, calibration: own }, { name: 'nut', images: 4, calibration }] });
    const inspector = await Inspector.open(engine, unified, encoder);
    expect([inspector.category, inspector.calibration]).toEqual([undefined, calibration]);
    inspector.category = 'screw';
    expect([inspector.category, inspector.threshold, inspector.calibration]).toEqual(['screw', 0.2, own]);
    const { score, regions } = await inspector.inspect(images[0]!);
    inspector.category = undefined;
    expect([inspector.threshold, inspector.calibration]).toEqual([calibration.threshold, calibration]);
    expect((await inspector.inspect(images[0]!)).score).toBe(score);
    inspector.threshold = 0.7;
    inspector.category = 'screw'; // brings its own threshold back
    expect(await inspector.inspect(images[0]!)).toMatchObject({ threshold: 0.2, verdict: score > 0.2 ? 'defective' : 'good', regions });
    expect(() => { inspector.category = 'bolt'; }).toThrow(/knows screw, nut, not bolt/);
    inspector.dispose();
    const one = await open();
    expect(() => { one.category = 'screw'; }).toThrow(UsageError);
    expect(() => { one.category = 'screw'; }).toThrow(/no categories/);
    one.dispose();
  });

  it('refuses images that are none, and stays usable', async () => {
    const inspector = await open(3);
    const wrong = { width: 8, height: 8, channels: 3 as const, data: new Uint8Array(10) };
    await expect(inspector.inspect(wrong)).rejects.toThrow(InputError);
    await expect(inspector.inspectBatch([images[0]!, wrong])).rejects.toThrow(/image 2/);
    expect((await inspector.inspect(images[0]!)).score).toBeGreaterThan(0);
    inspector.dispose();
  });
});

describe('a model', () => {
  it('comes out as it went in', async () => {
    const inspector = await open();
    expect(inspector.serialize()).toEqual(model);
    expect(inspector.metadata).toEqual(metadata);
    expect(Inspector.readMetadata(model)).toEqual(metadata);
    inspector.dispose();
  });

  it('frees everything when disposed of, and when it can\'t be opened', async () => {
    const { context } = engine;
    const before = context.allocatedBytes;
    const inspector = await open(3);
    await inspector.inspectBatch(images);
    expect(context.allocatedBytes).toBeGreaterThan(before);
    inspector.dispose();
    expect(context.allocatedBytes).toBe(before);
    await expect(inspector.inspect(images[0]!)).rejects.toThrow(UsageError);
    await expect(Inspector.open(engine, model, await smallEncoder('other'))).rejects.toThrow(EncoderMismatchError);
    await expect(Inspector.open(engine, model, smallEncoder('other'))).rejects.toThrow(EncoderMismatchError);
    await expect(Inspector.open(engine, model, Promise.reject(new InputError('No such file.')))).rejects.toThrow('No such file.');
    await expect(open(0)).rejects.toThrow(UsageError);
    await expect(Inspector.open(engine, model.slice(0, 3000), encoder, { name: 'part' })).rejects.toThrow(/part/);
    const incomplete = { ...encoder, tensors: new Map([...encoder.tensors].slice(0, -1)) };
    await expect(Inspector.open(engine, model, incomplete)).rejects.toThrow(UsageError);
    expect(context.allocatedBytes).toBe(before);
  });

  it('whose values overflow is an error and not a good score', async () => {
    const tensors = new Map([...encoder.tensors].map(([name, t]) => [name, name.includes('mlp.fc2.weight') ? { ...t, data: t.data.map(() => 3e38) } : t]));
    const inspector = await Inspector.open(engine, model, { ...encoder, tensors });
    await expect(inspector.inspect(images[0]!)).rejects.toThrow(/no finite score/);
    inspector.dispose();
  });
});
