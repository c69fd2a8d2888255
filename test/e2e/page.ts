/** What runs inside the page: each function does one test's work on the page's own device; the test compares in Node. */
import {
  createBrowserEngine, compile, detectorConfig, DeviceLostError, Executable, InpFormerError, input, Inspector, loadEncoderWeights, ops,
  type DetectorOptions, type EncoderWeights, type Engine, type TensorData,
} from '../../src/browser/index.ts';
import { encode } from '../../src/model/encoder.ts';
import { cachedFeatures, inspectionGraph, leafGradients, trainingObjective, type ObjectiveOptions } from '../../src/model/graphs.ts';
import { uploadEncoder, uploadTrainables } from '../../src/model/memory.ts';
import { trainableLeaves, trainableShapes } from '../../src/model/parameters.ts';
import { TrainingStep } from '../../src/train/step.ts';
import { readSafetensors, tensorToFloat32, writeSafetensors } from '../../src/weights/safetensors.ts';
import { operationCases } from '../ops/cases/index.ts';
import { forwardErrors, forwardTolerance } from '../support/operation-run.ts';
import { defectiveImage, trainSmall } from './small-training.ts';

export interface OperationOutcome {
  readonly name: string;
  readonly output: string;
  readonly error: number;
  readonly tolerance: number;
}

export interface ErrorRecord {
  readonly isDeviceLost: boolean;
  readonly reason: string | undefined;
  readonly message: string;
}

/** The whole model on one batch: which outputs are wanted, and the learning rate of each training step. */
export interface ModelRun {
  readonly detector: Omit<DetectorOptions, 'architecture'>;
  readonly numHeads: number;
  readonly mapSize: number;
  readonly objective: ObjectiveOptions;
  readonly imageShape: readonly number[];
  readonly learningRates: readonly number[];
}

export interface TrainingOutcome {
  readonly losses: readonly number[];
  readonly score: number;
}

async function fetchFile(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(`/files/${name}`);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function sendFile(name: string, bytes: Uint8Array): Promise<void> {
  await fetch(`/files/${name}`, { method: 'PUT', body: bytes as Uint8Array<ArrayBuffer> });
}

function sendTensors(name: string, tensors: Iterable<readonly [string, TensorData]>): Promise<void> {
  return sendFile(name, writeSafetensors([...tensors].map(([tensor, data]) =>
    [tensor, { dtype: 'F32', shape: [data.length], data: Float32Array.from(data) }] as const)));
}

const encoder = async (): Promise<EncoderWeights> => loadEncoderWeights(await fetchFile('encoder'), { name: 'tiny' });

async function withEngine<T>(body: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await createBrowserEngine();
  try {
    return await body(engine);
  } finally {
    engine.dispose();
  }
}

function errorRecord(error: unknown): ErrorRecord {
  return {
    isDeviceLost: error instanceof DeviceLostError,
    reason: error instanceof DeviceLostError ? error.reason : undefined,
    message: error instanceof InpFormerError ? error.message : `not one of the package's errors: ${String(error)}`,
  };
}

/** Replays a small plan until it fails; `onRunning` is called when it has run once. */
async function runUntilError(engine: Engine, onRunning: () => void = () => undefined): Promise<ErrorRecord> {
  try {
    const executable = await engine.prepare({ product: ops.matmul(input('a', [64, 64]), input('b', [64, 64]), { shape: [64, 64] }) });
    const feeds = { a: new Float32Array(4096).fill(1), b: new Float32Array(4096).fill(1) };
    for (const end = performance.now() + 60_000; performance.now() < end;) {
      await executable.run(feeds);
      onRunning();
    }
  } catch (error) {
    return errorRecord(error);
  }
  return errorRecord(new Error('nothing failed within a minute'));
}

let running: Promise<ErrorRecord> | undefined;
let checkpoint: Uint8Array | undefined;

const pageTests = {
  adapter: (): Promise<string> => withEngine(async ({ adapter }) => adapter.name),

  /** Kernels measured for a small plan by this page's first engine, and then by another one, which finds what was kept. */
  tune: async (): Promise<number[]> => {
    const measured: number[] = [];
    for (let i = 0; i < 2; i++) {
      measured.push(await withEngine((engine) => engine.tune(compile({
        target: engine.context.target, outputs: { product: ops.matmul(input('a', [64, 64]), input('b', [64, 64]), { shape: [64, 64] }) },
      }))));
    }
    return measured;
  },

  /** Every row of the operations' table, on its first shape. */
  operations: (): Promise<OperationOutcome[]> => withEngine(async ({ context }) => {
    const outcomes: OperationOutcome[] = [];
    for (const c of operationCases) {
      const errors = await forwardErrors(context, c, c.shapes[0]);
      for (const [output, error] of Object.entries(errors)) outcomes.push({ name: c.name, output, error, tolerance: c.tolerance ?? forwardTolerance });
    }
    return outcomes;
  }),

  /** Sends `forward`, `gradients`, and `step1`, `step2`, … with the parameters after each training step; returns the losses. */
  model: ({ detector, numHeads, mapSize, objective, imageShape, learningRates }: ModelRun): Promise<number[]> => withEngine(async ({ context }) => {
    const weights = await loadEncoderWeights(await fetchFile('golden-encoder'), { architecture: { numHeads } });
    const config = detectorConfig({ ...detector, architecture: weights.architecture });
    const stored = readSafetensors(await fetchFile('golden-model')).tensors;
    const values = new Map([...trainableShapes(config).keys()].map((name) => [name, tensorToFloat32(stored.get(name)!)]));
    const image = { image: tensorToFloat32(readSafetensors(await fetchFile('golden-image')).tensors.get('image')!) };
    const memories = [await uploadEncoder(context, weights, config), await uploadTrainables(context, values, config)];
    const parameters = new Map(memories.flatMap((m) => [...m.tensors]));
    const run = async (outputs: Parameters<Engine['prepare']>[0]): Promise<Record<string, TensorData>> => {
      const executable = await Executable.prepare(context, compile({ target: context.target, outputs }), parameters);
      try {
        return await executable.run(image);
      } finally {
        executable.dispose();
      }
    };

    const leaf = input('image', imageShape);
    const { features, reconstruction, scoring } = inspectionGraph(leaf, config, mapSize);
    await sendTensors('forward', Object.entries(await run({
      ...Object.fromEntries(features.groups.map((en, g) => [`en${g}`, en])),
      P: reconstruction.prototypes!,
      ...Object.fromEntries(reconstruction.groups.map((de, g) => [`de${g}`, de])),
      'map.final': scoring.map, score: scoring.score,
    })));

    const p = trainableLeaves(config);
    const { loss } = trainingObjective([encode(leaf, config)], p, config, objective);
    const ofLeaves = leafGradients(loss, p);
    await sendTensors('gradients', Object.entries(await run(Object.fromEntries(p.byName((leaf) => ofLeaves.get(leaf.name)!)))));

    const batch = imageShape[0]!;
    const cached = Object.values(await run(Object.fromEntries(cachedFeatures(encode(leaf, config), config).map((t, i) => [`features.${i}`, t]))));
    const featuresOf = (b: number): Float32Array =>
      Float32Array.from(cached.flatMap((t) => [...t.subarray((b * t.length) / batch, ((b + 1) * t.length) / batch)]));
    const images = Array.from({ length: batch }, (_, b) => featuresOf(b));
    const step = await TrainingStep.create(context, config, batch, { values });
    const losses: number[] = [];
    for (const [i, rate] of learningRates.entries()) {
      losses.push((await step.run(images, i + 1, rate)).loss);
      await sendTensors(`step${i + 1}`, (await step.readState()).values);
    }
    step.dispose();
    return losses;
  }),

  /** Sends `page-model` and the map of the defective image, `page-map`. */
  train: (steps: number): Promise<TrainingOutcome> => withEngine(async (engine) => {
    const { inspector, model, record } = await trainSmall(engine, await encoder(), { steps });
    const { score, map } = await inspector.inspect(defectiveImage());
    inspector.dispose();
    await sendFile('page-model', model);
    await sendTensors('page-map', [['map', map]]);
    return { losses: record.losses, score };
  }),

  /** Inspects with the model file that Node has trained; sends `page-map`. */
  inspect: (): Promise<number> => withEngine(async (engine) => {
    const inspector = await Inspector.open(engine, await fetchFile('node-model'), await encoder());
    const { score, map } = await inspector.inspect(defectiveImage());
    inspector.dispose();
    await sendTensors('page-map', [['map', map]]);
    return score;
  }),

  /** Destroys a device while a plan is replayed on it, at several moments of a run. */
  destroyWhileRunning: async (): Promise<{ work: ErrorRecord; listener: ErrorRecord; after: ErrorRecord }[]> => {
    const outcomes = [];
    for (const milliseconds of [0, 1, 2, 3, 5, 8, 13, 21]) {
      const engine = await createBrowserEngine();
      const listener = new Promise<ErrorRecord>((resolve) => { engine.onLost((error) => resolve(errorRecord(error))); });
      let timer: ReturnType<typeof setTimeout> | undefined;
      const work = await runUntilError(engine, () => { timer ??= setTimeout(() => engine.context.device.destroy(), milliseconds); });
      outcomes.push({ work, listener: await listener, after: await runUntilError(engine) });
    }
    return outcomes;
  },

  /** Starts replaying a plan until it fails. */
  startRunning: async (): Promise<void> => {
    const engine = await createBrowserEngine();
    await new Promise<void>((resolve) => { running = runUntilError(engine, resolve); });
  },

  /** Starts a training that waits, with the checkpoint of step 4 just written, until the device is lost. */
  startTraining: async (steps: number): Promise<void> => {
    const engine = await createBrowserEngine();
    const weights = await encoder();
    const lost = new Promise<void>((resolve) => { engine.onLost(() => resolve()); });
    await new Promise<void>((resolve, reject) => {
      let saves = 0;
      running = trainSmall(engine, weights, {
        steps, checkpointEverySteps: 2,
        checkpoint: {
          load: async () => undefined,
          save: async (bytes) => {
            checkpoint = bytes;
            if (++saves < 2) return;
            resolve();
            await lost;
          },
        },
      }).then(() => errorRecord(new Error('the training came to its end')), errorRecord);
      void running.then(({ message }) => reject(new Error(message)));
    });
  },

  /** How what was started has ended. */
  outcome: (): Promise<ErrorRecord> => running!,

  /** Goes on from the checkpoint of the training that was started; sends `resumed-model`. */
  resume: (steps: number): Promise<{ firstStep: number | undefined }> => withEngine(async (engine) => {
    let firstStep: number | undefined;
    const { inspector, model } = await trainSmall(engine, await encoder(), {
      steps, checkpointEverySteps: 2, resume: true,
      checkpoint: { load: async () => checkpoint, save: async (bytes) => { checkpoint = bytes; } },
      onProgress: ({ step }) => { firstStep ??= step; },
    });
    inspector.dispose();
    await sendFile('resumed-model', model);
    return { firstStep };
  }),
};

export type PageTests = typeof pageTests;
(globalThis as unknown as { pageTests: PageTests }).pageTests = pageTests;
