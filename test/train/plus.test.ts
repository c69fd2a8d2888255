// INP-Former++ as a whole, on a small model: two stages that can be stopped and resumed to the bit, a head for a model that
// is there already, real defects, and what goes wrong by name.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { ImageSource, RasterImage } from '../../src/data/image.ts';
import { Engine } from '../../src/engine.ts';
import { AbortedError, InputError, UsageError } from '../../src/errors.ts';
import { Inspector } from '../../src/inspect/inspector.ts';
import { trainInspector, type CheckpointStore, type PlusOptions, type TrainOptions, type TrainProgress, type TrainResult } from '../../src/train/train.ts';
import { readSafetensors, tensorToFloat32 } from '../../src/weights/safetensors.ts';
import { testGpu } from '../support/gpu.ts';
import { drawnImage, drawnSources, smallEncoder, unreadableSource } from '../support/small-encoder.ts';

/** Whole trainings, of hundreds of kernels: minutes where the machine is busy. */
const patience = 600_000;

let engine: Engine | undefined;
async function theEngine(): Promise<Engine> {
  engine ??= await Engine.create({ gpu: await testGpu() });
  return engine;
}

const images = drawnSources(5);
const calibrationImages = drawnSources(7).slice(5);

function train(plus: PlusOptions = {}, options: Partial<TrainOptions> = {}): Promise<TrainResult> {
  return theEngine().then(async (e) => trainInspector(e, {
    encoder: await smallEncoder(), images, calibrationImages, resize: 48, crop: 42, batchSize: 2, steps: 4, warmupSteps: 1, decoderDepth: 2, numPrototypes: 3,
    plus: { headSteps: 5, pseudoAnomalies: 6, ...plus }, ...options,
  }));
}

async function modelOf(result: Promise<TrainResult>): Promise<Uint8Array> {
  const { inspector, model } = await result;
  inspector.dispose();
  return model;
}

const hash = (model: Uint8Array) => createHash('sha256').update(model).digest('hex');
let first: Promise<Uint8Array> | undefined;
const reference = () => (first ??= modelOf(train()));

function memoryStore(): CheckpointStore & { bytes: Uint8Array | undefined } {
  return { bytes: undefined, async load() { return this.bytes; }, async save(bytes) { this.bytes = bytes; } };
}

const abortAt = (phase: TrainProgress['phase'], done: number): Pick<TrainOptions, 'signal' | 'onProgress'> => {
  const controller = new AbortController();
  return { signal: controller.signal, onProgress: (p) => { if (p.phase === phase && p.done >= done) controller.abort(); } };
};
const positionOf = (bytes: Uint8Array) => {
  const { stage, step } = JSON.parse(Object.values(readSafetensors(bytes).metadata)[0]!) as { stage: string; step: number };
  return { stage, step };
};

const named = (name: string, image: RasterImage): ImageSource => ({ name, load: async () => image });
const maskOf = (name: string, size = 64, value = 255): ImageSource => named(name, {
  width: size, height: size, channels: 1, data: Uint8Array.from({ length: size * size }, (_, i) => (Math.abs((i % size) - 30) < 8 && Math.abs(Math.floor(i / size) - 26) < 6 ? value : 0)),
});
const defect = { image: named('broken.png', drawnImage('broken')), mask: maskOf('broken_mask.png') };

afterEach(() => {
  expect(engine?.context.allocatedBytes ?? 0).toBe(0);
});

describe('a model with a segmentation head', { timeout: patience }, () => {
  it('is trained in named phases, and inspects with no further flag', async () => {
    const phases: string[] = [];
    const { inspector, model, record } = await train({}, { onProgress: ({ phase }) => { if (phases.at(-1) !== phase) phases.push(phase); } });
    first ??= Promise.resolve(model);
    expect(phases).toEqual(['encoding', 'training', 'pseudo-anomalies', 'training head', 'calibrating']);
    expect(record.head!.losses).toHaveLength(5);
    expect(record.head!.losses.every((loss) => loss > 0 && loss < 1)).toBe(true);
    expect(inspector.metadata).toMatchObject({
      distance: 'cosine+l2', segmentationHead: true,
      training: { learningRate: 5e-4, finalLearningRate: 5e-5, head: { steps: 5, batchSize: 2, pseudoAnomalies: 6, textures: 0, defects: 0, finalLoss: record.head!.finalLoss } },
    });
    const { map, score, mapWidth, mapHeight } = await inspector.inspect(drawnImage('new'));
    expect(map.length).toBe(mapWidth * mapHeight);
    expect(score).toBeGreaterThan(0);
    const again = await Inspector.open(await theEngine(), model, await smallEncoder());
    expect((await again.inspect(drawnImage('new'))).map).toEqual(map);
    again.dispose();
    inspector.dispose();
  });

  it('is the same stopped in either stage, and between them, and resumed', async () => {
    const checkpoint = memoryStore();
    const stopped = async (at: Parameters<typeof abortAt>) => expect(train({}, { checkpoint, resume: true, ...abortAt(...at) })).rejects.toThrow(AbortedError);
    await stopped(['training', 1]);
    expect(positionOf(checkpoint.bytes!).stage).toBe('detector');
    await stopped(['pseudo-anomalies', 3]);
    expect(positionOf(checkpoint.bytes!)).toEqual({ stage: 'detector', step: 4 });
    await stopped(['training head', 1]);
    const { stage, step } = positionOf(checkpoint.bytes!);
    expect(stage).toBe('head');
    expect(step).toBeLessThan(5);
    await expect(train({ headSteps: 6 }, { checkpoint, resume: true })).rejects.toThrow(/its plus was/);
    const phases = new Set<string>();
    expect(hash(await modelOf(train({}, { checkpoint, resume: true, onProgress: ({ phase }) => phases.add(phase) })))).toBe(hash(await reference()));
    expect([...phases]).toEqual(['pseudo-anomalies', 'training head', 'calibrating']);
  });

  it('can have new defects in every step', async () => {
    const model = await modelOf(train({ pseudoAnomalies: 'fresh', headSteps: 3 }));
    expect(Inspector.readMetadata(model).training.head).toMatchObject({ pseudoAnomalies: 'fresh', steps: 3 });
  });

  it('can be without its head: the losses alone', async () => {
    const model = await modelOf(train({ head: false, headSteps: undefined, pseudoAnomalies: undefined } as PlusOptions));
    expect(Inspector.readMetadata(model)).toMatchObject({ distance: 'cosine+l2', segmentationHead: false });
    expect([...readSafetensors(model).tensors.keys()].some((name) => name.startsWith('head.'))).toBe(false);
  });
});

describe('a model that is there already', { timeout: patience }, () => {
  it('gets a head, and nothing else of it changes; or its head is trained on, with real defects', async () => {
    const base = await modelOf(train({}, { plus: undefined } as Partial<TrainOptions>));
    const withHead = await modelOf(train({ from: base }, { resize: undefined, crop: undefined } as Partial<TrainOptions>));
    const [before, after] = [base, withHead].map((model) => readSafetensors(model).tensors);
    for (const [name, { data }] of before!) expect(after!.get(name)!.data, name).toEqual(data);
    expect([...after!.keys()].filter((name) => !before!.has(name)).sort()).toEqual([0, 1, 2].flatMap((i) => [`head.${i}.bias`, `head.${i}.weight`]));
    expect(Inspector.readMetadata(withHead)).toMatchObject({ distance: 'cosine', segmentationHead: true, training: { steps: 4, learningRate: 1e-3, head: { defects: 0 } } });

    const further = await modelOf(train({ from: withHead, defects: [defect] }));
    expect(Inspector.readMetadata(further).training.head).toMatchObject({ defects: 1 });
    const heads = [withHead, further].map((model) => tensorToFloat32(readSafetensors(model).tensors.get('head.0.weight')!, 'head.0.weight'));
    expect(heads[1]).not.toEqual(heads[0]);
    // Trained on, not anew: a few small steps from where it was.
    expect(Math.max(...heads[0]!.map((v, i) => Math.abs(v - heads[1]![i]!)))).toBeLessThan(0.01);
    await expect(train({ from: withHead }, { resize: 64, crop: 56 })).rejects.toThrow(/resized to 48 x 48 and cropped to 42 x 42/);
  });

  it('is the same as one whose head was trained with it, where its losses were those of INP-Former++', async () => {
    const losses = await modelOf(train({ head: false, headSteps: undefined, pseudoAnomalies: undefined } as PlusOptions));
    const [apart, together] = [await modelOf(train({ from: losses })), await reference()].map((model) => readSafetensors(model).tensors);
    expect([...apart!.keys()].sort()).toEqual([...together!.keys()].sort());
    for (const [name, { data }] of together!) expect(hash(apart!.get(name)!.data), name).toBe(hash(data));
  });
});

describe('what can\'t be trained on', () => {
  const attempts: [string, PlusOptions, typeof InputError | typeof UsageError, RegExp][] = [
    ['a mask of another size', { defects: [{ ...defect, mask: maskOf('small_mask.png', 32) }] }, InputError, /small_mask\.png: the mask is 32 x 32 pixels, its image broken\.png 64 x 64/],
    ['a mask that marks nothing', { defects: [{ ...defect, mask: maskOf('ones.png', 64, 1) }] }, InputError, /ones\.png: the mask is black/],
    ['a defect that is no image', { defects: [{ ...defect, image: unreadableSource('bad.png') }] }, InputError, /bad\.png/],
    ['a texture that is no image', { textures: [unreadableSource('no texture.png')] }, InputError, /no texture\.png/],
    ['steps and epochs', { headSteps: 2, headEpochs: 2 }, UsageError, /headSteps or headEpochs, not both/],
    ['no steps', { headSteps: 0 }, UsageError, /headSteps must be a positive integer/],
    ['no rate', { headLearningRate: NaN }, UsageError, /headLearningRate must/],
    ['defects without a head', { head: false, headSteps: undefined, pseudoAnomalies: undefined, defects: [defect] } as PlusOptions, UsageError, /defects is for the segmentation head/],
  ];
  it.each(attempts)('%s', async (_, plus, type, message) => {
    const attempt = train(plus, { steps: 1 });
    await expect(attempt).rejects.toThrow(type);
    await expect(attempt).rejects.toThrow(message);
  });
});
