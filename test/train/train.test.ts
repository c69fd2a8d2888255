// Whole trainings of a small model: the same seed gives the same bytes, stopped and resumed or not; what goes wrong is a
// typed error, and the last good state is kept.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { ImageSource } from '../../src/data/image.ts';
import { Engine } from '../../src/engine.ts';
import { AbortedError, AllocationError, InputError, TrainingDivergedError, UsageError } from '../../src/errors.ts';
import { Inspector } from '../../src/inspect/inspector.ts';
import { readModelMetadata } from '../../src/inspect/model-file.ts';
import { openSpillFile } from '../../src/node/spill.ts';
import { trainInspector, type CheckpointStore, type TrainOptions, type TrainProgress, type TrainResult } from '../../src/train/train.ts';
import { readSafetensors } from '../../src/weights/safetensors.ts';
import type { SpillStore } from '../../src/train/feature-cache.ts';
import { testGpu } from '../support/gpu.ts';
import { drawnImage, drawnSources, smallEncoder, unreadableSource } from '../support/small-encoder.ts';

let engine: Engine | undefined;
async function theEngine(): Promise<Engine> {
  engine ??= await Engine.create({ gpu: await testGpu() });
  return engine;
}

const images = drawnSources(7);
const calibrationImages = drawnSources(9).slice(7);

async function train(options: Partial<TrainOptions> = {}): Promise<Omit<TrainResult, 'inspector'>> {
  const { inspector, ...result } = await trainInspector(await theEngine(), {
    encoder: await smallEncoder(), images, calibrationImages, resize: 64, crop: 56, batchSize: 3, steps: 8, warmupSteps: 2, decoderDepth: 2, numPrototypes: 3, ...options,
  });
  inspector.dispose();
  return result;
}

function memoryStore(): CheckpointStore & { bytes: Uint8Array | undefined; saves: number } {
  return {
    bytes: undefined, saves: 0,
    async load() { return this.bytes; },
    async save(bytes) { this.bytes = bytes; this.saves++; },
  };
}

const hash = ({ model }: Pick<TrainResult, 'model'>) => createHash('sha256').update(model).digest('hex');
const stepOf = (bytes: Uint8Array) => (JSON.parse(Object.values(readSafetensors(bytes).metadata)[0]!) as { step: number }).step;
const abortAfter = (step: number): Pick<TrainOptions, 'signal' | 'onProgress'> => {
  const controller = new AbortController();
  return { signal: controller.signal, onProgress: (p) => { if (p.phase === 'training' && p.step! >= step) controller.abort(); } };
};

let uninterrupted: Promise<Omit<TrainResult, 'inspector'>> | undefined;
const reference = () => (uninterrupted ??= train());

afterEach(() => {
  // Whatever happened, every buffer was given back.
  expect(engine?.context.allocatedBytes ?? 0).toBe(0);
});

describe('the same seed', () => {
  it('gives the same model to the byte, and another seed another', async () => {
    const { record } = await reference();
    expect(record.losses).toHaveLength(8);
    expect(record.losses.at(-1)).toBe(record.finalLoss);
    expect(record.losses.every((l) => l > 0 && l < 3)).toBe(true);
    expect(hash(await train())).toBe(hash(await reference()));
    expect(hash(await train({ seed: 2 }))).not.toBe(hash(await reference()));
  });

  it('gives the same model whatever categories the images have, which only get a threshold each', async () => {
    const categorised = (sources: readonly ImageSource[]) => sources.map((source, i) => ({ ...source, category: i % 2 === 0 ? 'a' : 'b' }));
    const { model } = await train({ images: categorised(images), calibrationImages: categorised(calibrationImages) });
    const metadata = readModelMetadata(model);
    expect(metadata.categories).toMatchObject([{ name: 'a', images: 4, calibration: { count: 1 } }, { name: 'b', images: 3, calibration: { count: 1 } }]);
    const { categories: _, ...rest } = metadata;
    expect(rest).toEqual(readModelMetadata((await reference()).model));
    const tensors = (bytes: Uint8Array) => [...readSafetensors(bytes).tensors].map(([name, { data }]) => [name, data]);
    expect(tensors(model)).toEqual(tensors((await reference()).model));
  });

  it('gives the same model with features spilled to a file', async () => {
    expect(hash(await train({ featureCache: { maxBytes: 10_000, spill: openSpillFile } }))).toBe(hash(await reference()));
  });

  it('gives the same model stopped in the middle and resumed, more than once', async () => {
    const checkpoint = memoryStore();
    await expect(train({ checkpoint, ...abortAfter(1) })).rejects.toThrow(AbortedError);
    const first = stepOf(checkpoint.bytes!);
    expect(first).toBeGreaterThanOrEqual(2);
    expect(first).toBeLessThan(5);
    await expect(train({ checkpoint, resume: true, ...abortAfter(first) })).rejects.toThrow(/stopped after step \d of 8; the checkpoint is kept/);
    expect(stepOf(checkpoint.bytes!)).toBeGreaterThan(first);
    const { model, record } = await train({ checkpoint, resume: true });
    expect(record.losses.length).toBeLessThan(8);
    expect(hash({ model })).toBe(hash(await reference()));
    // Kept, at the last step, until its owner has stored the model.
    expect(stepOf(checkpoint.bytes!)).toBe(8);
  });

  it('gives the same model where it rests, with what is done saved and the time not counted, and where it is watched', async () => {
    const checkpoint = memoryStore();
    const seen: { step: number; score: number; mean: number }[] = [];
    let [asked, resting] = [0, false];
    const stepsWhileResting: number[] = [];
    const { model, record } = await train({
      checkpoint,
      gate: () => {
        // Once for each image, step and calibration image.
        if (++asked !== images.length + 5) return undefined;
        resting = true;
        return new Promise((resolve) => { setTimeout(() => { resting = false; resolve(); }, 300); });
      },
      preview: { image: calibrationImages[0]!, everySteps: 3, onMap: ({ step, score, map }) => seen.push({ step, score, mean: map.reduce((a, b) => a + b, 0) / map.length }) },
      onProgress: ({ step }) => { if (resting && step !== undefined && checkpoint.saves > 0) stepsWhileResting.push(step); },
    });
    expect(asked).toBe(images.length + 8 + calibrationImages.length);
    expect(checkpoint.saves).toBe(2);
    expect(stepsWhileResting).toEqual([]);
    expect(hash({ model })).toBe(hash(await reference()));
    expect(record.losses).toEqual((await reference()).record.losses);
    expect(seen.map(({ step }) => step)).toEqual([0, 3, 6, 8]);
    expect(seen.at(-1)!.mean).toBeLessThan(seen[0]!.mean);
    // The last map is the trained model's.
    const inspector = await Inspector.open(await theEngine(), model, await smallEncoder());
    const { score } = await inspector.inspect(await calibrationImages[0]!.load());
    inspector.dispose();
    expect(seen.at(-1)!.score).toBeCloseTo(score, 5);
  });

  it('gives the same model with checkpoints on the way, and from the one that is written last', async () => {
    const checkpoint = memoryStore();
    expect(hash(await train({ checkpoint, checkpointEverySteps: 3 }))).toBe(hash(await reference()));
    expect(checkpoint.saves).toBe(3); // after 3, 6 and all 8 steps
    expect(stepOf(checkpoint.bytes!)).toBe(8);
    const { model, record } = await train({ checkpoint, resume: true });
    expect(record.losses).toEqual([]);
    expect(hash({ model })).toBe(hash(await reference()));
  });

  it('is refused to resume with other settings, or from a damaged checkpoint', async () => {
    const checkpoint = memoryStore();
    await expect(train({ checkpoint, ...abortAfter(1) })).rejects.toThrow(AbortedError);
    const saved = checkpoint.bytes!;
    await expect(train({ checkpoint, resume: true, seed: 2 })).rejects.toThrow(/its seed was 1, now 2/);
    await expect(train({ checkpoint, resume: true, images: images.slice(1) })).rejects.toThrow(/its images was 7 images, now 6/);
    await expect(train({ checkpoint, resume: true, encoder: await smallEncoder('other') })).rejects.toThrow(UsageError);
    expect(checkpoint.bytes).toBe(saved);
    checkpoint.bytes = saved.slice(0, 1000);
    await expect(train({ checkpoint, resume: true })).rejects.toThrow(InputError);
  });
});

describe('a training that diverges', () => {
  it('stops with the step and the loss, and keeps the last good checkpoint, from which one can go on', async () => {
    const checkpoint = memoryStore();
    const diverging = { learningRate: 1e30, finalLearningRate: 1e30, warmupSteps: 4, steps: 12, checkpointEverySteps: 1 };
    const error = await train({ ...diverging, checkpoint }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TrainingDivergedError);
    // Rate 0 in step 0; the values that step 1 ruins show in the loss of step 2.
    expect((error as TrainingDivergedError).step).toBe(2);
    expect((error as TrainingDivergedError).message).toMatch(/step 2.*checkpoint/);
    expect(stepOf(checkpoint.bytes!)).toBe(1);
    await expect(train({ ...diverging, checkpoint, resume: true })).rejects.toThrow(TrainingDivergedError);
    const controlled = await train({ ...diverging, checkpoint, resume: true, ...abortAfter(1) }).catch((e: unknown) => e);
    expect(controlled).toBeInstanceOf(TrainingDivergedError);
    expect(stepOf(checkpoint.bytes!)).toBe(1);
  });

  it('stops where features are not finite', async () => {
    const poisoned = async (): Promise<SpillStore> => {
      const store = await openSpillFile();
      return { ...store, read: async (index, length) => { const v = await store.read(index, length); v[3] = NaN; return v; } };
    };
    const checkpoint = memoryStore();
    await expect(train({ checkpoint, featureCache: { maxBytes: 0, spill: poisoned } })).rejects.toMatchObject({ code: 'diverged', step: 0 });
    expect(checkpoint.saves).toBe(0);
  });
});

describe('images', () => {
  const withBad: ImageSource[] = [...images.slice(0, 3), unreadableSource('bad.png'), ...images.slice(3)];
  const shapeless: ImageSource = { name: 'shapeless.png', load: async () => ({ width: 8, height: 8, channels: 3, data: new Uint8Array(5) }) };

  it('that can\'t be read fail it by name', async () => {
    await expect(train({ images: withBad })).rejects.toMatchObject({ code: 'input', file: 'bad.png' });
    await expect(train({ images: [...images, shapeless] })).rejects.toMatchObject({ code: 'input', file: 'shapeless.png' });
  });

  it('are left out with skipUnreadable, and listed, and change nothing else', async () => {
    const { model, record } = await train({ images: [...withBad, shapeless], calibrationImages: [unreadableSource('bad too.png'), ...calibrationImages], skipUnreadable: true });
    expect(record.skipped.map((s) => s.name)).toEqual(['bad.png', 'shapeless.png', 'bad too.png']);
    expect(record.skipped[0]!.reason).toContain('not an image');
    expect(hash({ model })).toBe(hash(await reference()));
  });

  it('none of which can be read, or none at all, are an InputError', async () => {
    await expect(train({ images: [] })).rejects.toMatchObject({ code: 'no-images' });
    await expect(train({ images: [unreadableSource('a'), unreadableSource('b')], skipUnreadable: true })).rejects.toThrow(/None of the 2 images can be read/);
    await expect(train({ steps: 1, calibrationImages: [unreadableSource('c')], skipUnreadable: true })).rejects.toThrow(/None of the 1 calibration images/);
  });

  it('may be just one, which then serves for the threshold too', async () => {
    const { inspector, model, record } = await trainInspector(await theEngine(), {
      encoder: await smallEncoder(), images: images.slice(0, 1), resize: 56, crop: 56, steps: 3, decoderDepth: 1, decoderGroups: [[0]], encoderGroups: [[0, 1, 2, 3]],
    });
    expect(record).toMatchObject({ steps: 3 });
    expect(inspector.metadata.training).toMatchObject({ images: 1, batchSize: 1, warmupSteps: 1 });
    expect(inspector.metadata.calibration.count).toBe(1);
    expect(inspector.metadata.calibration.rule).toContain('training set');
    expect((await inspector.inspect(drawnImage('drawn 0'))).verdict).toBe('good');
    expect(model.length).toBeGreaterThan(1000);
    inspector.dispose();
  });

  it('of many sizes and kinds are trained on together', async () => {
    const mixed = [{ width: 30, height: 90 }, { width: 200, height: 61, channels: 1 as const }, { width: 56, height: 56, channels: 4 as const }, { width: 17, height: 5 }, { width: 64, height: 300 }, { width: 130, height: 128 }];
    const { record } = await train({ images: mixed.map((size, i) => ({ name: `mixed ${i}`, load: async () => drawnImage(`mixed ${i}`, size) })), steps: 2 });
    expect(record.steps).toBe(2);
  });

  it('beyond the feature cache are an AllocationError where there is nowhere to spill', async () => {
    await expect(train({ featureCache: { maxBytes: 10_000 } })).rejects.toThrow(AllocationError);
  });
});

describe('progress', () => {
  it('counts images and steps, with loss, rate, speed and time left', async () => {
    const seen: TrainProgress[] = [];
    await train({ onProgress: (p) => seen.push(p) });
    const of = (phase: TrainProgress['phase']) => seen.filter((p) => p.phase === phase);
    expect(of('encoding').map((p) => p.done)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(of('training').map((p) => [p.done, p.total, p.step])).toEqual(Array.from({ length: 8 }, (_, i) => [i + 1, 8, i]));
    expect(of('calibrating').map((p) => p.done)).toEqual([1, 2]);
    expect(of('training').map((p) => p.learningRate!).slice(0, 3)).toEqual([0, 1e-3, 1e-3]);
    for (const p of seen) {
      expect(p.imagesPerSecond).toBeGreaterThan(0);
      expect(p.secondsLeft).toBeGreaterThanOrEqual(0);
    }
    expect(seen.at(-1)!.secondsLeft).toBe(0);
  });

  it('stops before training and before calibration when asked', async () => {
    const at = (phase: TrainProgress['phase']): Partial<TrainOptions> => {
      const controller = new AbortController();
      return { signal: controller.signal, onProgress: (p) => { if (p.phase === phase) controller.abort(); } };
    };
    await expect(train(at('encoding'))).rejects.toThrow(/while encoding; nothing was trained yet/);
    const checkpoint = memoryStore();
    await expect(train({ ...at('calibrating'), checkpoint })).rejects.toThrow(/while calibrating; the checkpoint holds the trained state/);
    expect(stepOf(checkpoint.bytes!)).toBe(8);
    const before = new AbortController();
    before.abort();
    await expect(train({ signal: before.signal })).rejects.toThrow(AbortedError);
  });
});

describe('settings', () => {
  it.each([
    [{ steps: 3, epochs: 2 }, /steps or epochs, not both/], [{ steps: 0 }, /steps must be a positive integer/], [{ steps: undefined, epochs: 1.5 }, /epochs must/],
    [{ batchSize: -1 }, /batchSize must/], [{ warmupSteps: -1 }, /warmupSteps must/], [{ checkpointEverySteps: 0 }, /checkpointEverySteps must/],
    [{ crop: 57 }, /multiples of the encoder's patch size, 14/], [{ crop: 70 }, /crop of 70 x 70 does not fit into the resized image of 64 x 64/], [{ resize: 64.5 }, /resize must/],
    [{ seed: 0.5 }, /seed must be an integer/], [{ taps: [0, 9] }, /Taps must be/], [{ decoderGroups: [[0], [5]] }, /Decoder groups/], [{ numPrototypes: 0 }, /numPrototypes/],
    [{ learningRate: NaN }, /learningRate must/], [{ learningRate: -1 }, /learningRate must/], [{ finalLearningRate: Infinity }, /finalLearningRate must/],
  ] satisfies [Partial<TrainOptions>, RegExp][])('%o are refused', async (options, message) => {
    const attempt = train(options);
    await expect(attempt).rejects.toThrow(UsageError);
    await expect(attempt).rejects.toThrow(message);
  });

  it('in epochs are whole epochs, their incomplete batches dropped', async () => {
    const { record } = await train({ steps: undefined, epochs: 2 });
    expect(record.steps).toBe(4); // 7 images, batches of 3
  });
});
