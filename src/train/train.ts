/**
 * Training on normal images: encode each once, train extractor, bottleneck and decoder on the cached features with one
 * plan and one submit a step, calibrate the threshold on images held out, and hand back an inspector and its model
 * file. The loss of a step is read while later steps run. Everything random comes from the seed, so the same images
 * and seed give the same bytes, interrupted and resumed or not.
 */
import { Random } from '../data/random.ts';
import { checkRasterImage, type ImageSource, type RasterImage } from '../data/image.ts';
import type { Engine } from '../engine.ts';
import { AbortedError, InpFormerError, InputError, TrainingDivergedError, UsageError } from '../errors.ts';
import type { DeviceMemory } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile, type Plan } from '../graph/plan.ts';
import type { TensorData } from '../graph/tensor.ts';
import { calibrate, outlyingScores, type Calibration } from '../inspect/calibration.ts';
import { Inspector, InspectionNetwork, type RawInspection } from '../inspect/inspector.ts';
import { writeModel, type ModelMetadata, type TrainingRecord } from '../inspect/model-file.ts';
import { detectorConfig, type DetectorConfig, type DetectorOptions } from '../model/config.ts';
import { encodingGraph, featureCount } from '../model/graphs.ts';
import { ImageStage } from '../model/image-stage.ts';
import { uploadEncoder } from '../model/memory.ts';
import { defaultMapSize } from '../model/scoring.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { readCheckpoint, writeCheckpoint, type CheckpointIdentity, type CheckpointStore } from './checkpoint.ts';
import { FeatureCache, type FeatureCacheOptions } from './feature-cache.ts';
import { learningRateAt } from './schedule.ts';
import { planTrainingStep, TrainingStep } from './step.ts';
import { initialTrainables } from './trainables.ts';

export type { CheckpointStore } from './checkpoint.ts';

export interface TrainOptions extends Pick<DetectorOptions, 'taps' | 'encoderGroups' | 'decoderGroups' | 'numPrototypes' | 'extractorDepth' | 'decoderDepth'> {
  readonly encoder: EncoderWeights;
  /** Normal images. */
  readonly images: readonly ImageSource[];
  /** Normal images kept out of training, for the threshold. Without them the training images serve, with wider margins. */
  readonly calibrationImages?: readonly ImageSource[];
  /** Side of the square that images are resized to, pixels; default 448. */
  readonly resize?: number;
  /** Side of the centre crop, a multiple of the patch size; default 392. */
  readonly crop?: number;
  /** Optimiser steps. Default: 200 epochs as in the reference, but at most 1000 steps: about 2 epochs give nearly the final result. */
  readonly steps?: number;
  readonly epochs?: number;
  /** Steps of linear warm-up; default 100, but at most a third of all. */
  readonly warmupSteps?: number;
  /** Default 16; at most the number of images. The last incomplete batch of an epoch is dropped. */
  readonly batchSize?: number;
  readonly seed?: number;
  readonly learningRate?: number;
  readonly finalLearningRate?: number;
  /** Leaves images out that can't be read, instead of failing. */
  readonly skipUnreadable?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: TrainProgress) => void;
  readonly checkpoint?: CheckpointStore;
  /** Goes on from the checkpoint, where there is one. */
  readonly resume?: boolean;
  /** Default 100. */
  readonly checkpointEverySteps?: number;
  /**
   * Whether to measure first which kernels are fastest on this device, which takes seconds the first time: by default on
   * GPUs, as software adapters are few and known. The model does not depend on it.
   */
  readonly tune?: boolean;
  readonly featureCache?: FeatureCacheOptions;
}

export interface TrainProgress {
  readonly phase: 'encoding' | 'training' | 'calibrating';
  readonly done: number;
  readonly total: number;
  readonly step?: number;
  readonly loss?: number;
  readonly learningRate?: number;
  readonly imagesPerSecond: number;
  readonly secondsLeft: number;
}

export interface SkippedImage {
  readonly name: string;
  readonly reason: string;
}

export interface TrainResult {
  readonly inspector: Inspector;
  /** The model file's bytes. */
  readonly model: Uint8Array;
  readonly record: {
    readonly steps: number;
    readonly finalLoss: number;
    /** Loss of each step that this call ran. */
    readonly losses: readonly number[];
    /** Of the steps alone, without encoding and calibration. */
    readonly seconds: number;
    readonly imagesPerSecond: number;
    readonly skipped: readonly SkippedImage[];
    /** Images that the threshold was not calibrated on, because they score far above the others: look at them. */
    readonly outliers: readonly { readonly name: string; readonly score: number }[];
  };
}

/** Steps in flight before the oldest loss is waited for. */
const stepsAhead = 3;
/** Steps over which a loss is averaged before it is called diverging. */
const divergenceWindow = 20;

/**
 * @throws UsageError, InputError (unreadable images), AllocationError, DeviceLostError;
 *   AbortedError when the signal fires, after the checkpoint is saved; TrainingDivergedError, with the last good checkpoint kept
 */
export async function trainInspector(engine: Engine, options: TrainOptions): Promise<TrainResult> {
  const settings = resolveSettings(options);
  const { config } = settings;
  const skipped: SkippedImage[] = [];
  const cache = new FeatureCache(featureCount(config), options.featureCache);
  try {
    const used = await encodeImages(engine, options, settings, cache, skipped);
    const plan = scheduleOf(options, used.length);
    const trained = await runSteps(engine, options, settings, plan, cache, used);
    const { calibration, outliers, skippedImages } = await calibrateOn(engine, options, settings, trained.values, used);
    skipped.push(...skippedImages);
    const metadata = metadataOf(options, settings, calibration, {
      images: used.length, steps: plan.steps, batchSize: plan.batchSize, warmupSteps: plan.warmupSteps,
      learningRate: settings.learningRate, finalLearningRate: settings.finalLearningRate, seed: settings.seed, finalLoss: trained.finalLoss,
    });
    const model = writeModel(trained.values, metadata);
    const inspector = await Inspector.open(engine, model, options.encoder);
    return {
      inspector, model,
      record: { steps: plan.steps, finalLoss: trained.finalLoss, losses: trained.losses, seconds: trained.seconds, imagesPerSecond: trained.imagesPerSecond, skipped, outliers },
    };
  } finally {
    await cache.dispose();
  }
}

interface Settings {
  readonly config: DetectorConfig;
  readonly resize: number;
  readonly seed: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
}

function resolveSettings(options: TrainOptions): Settings {
  const { encoder, images, resize = 448, crop = 392, seed = 1, learningRate = 1e-3, finalLearningRate = 1e-4 } = options;
  if (images.length === 0) throw new InputError('There are no images to train on: give at least one normal image.', { code: 'no-images' });
  for (const [name, value] of Object.entries({ resize, crop })) {
    if (!Number.isInteger(value) || value < 1) throw new UsageError(`${name} must be a positive integer, got ${value}.`);
  }
  if (crop > resize) throw new UsageError(`The crop of ${crop} does not fit into images resized to ${resize}.`);
  if (!Number.isInteger(seed)) throw new UsageError(`The seed must be an integer, got ${seed}.`);
  if (options.steps !== undefined && options.epochs !== undefined) throw new UsageError('Give steps or epochs, not both.');
  for (const name of ['steps', 'epochs', 'batchSize', 'checkpointEverySteps'] as const) {
    const value = options[name];
    if (value !== undefined && (!Number.isInteger(value) || value < 1)) throw new UsageError(`${name} must be a positive integer, got ${value}.`);
  }
  const { warmupSteps } = options;
  if (warmupSteps !== undefined && (!Number.isInteger(warmupSteps) || warmupSteps < 0)) throw new UsageError(`warmupSteps must be an integer from 0, got ${warmupSteps}.`);
  for (const [name, value] of Object.entries({ learningRate, finalLearningRate })) {
    if (!(Number.isFinite(value) && value >= 0)) throw new UsageError(`${name} must be a finite number from 0, got ${value}.`);
  }
  return { config: detectorConfig({ ...options, architecture: encoder.architecture, crop }), resize, seed, learningRate, finalLearningRate };
}

interface StepSchedule {
  readonly steps: number;
  readonly warmupSteps: number;
  readonly batchSize: number;
  readonly stepsPerEpoch: number;
}

function scheduleOf(options: TrainOptions, images: number): StepSchedule {
  const batchSize = Math.min(options.batchSize ?? 16, images);
  const stepsPerEpoch = Math.floor(images / batchSize);
  const steps = options.steps ?? (options.epochs !== undefined ? options.epochs * stepsPerEpoch : Math.min(200 * stepsPerEpoch, 1000));
  return { steps, batchSize, stepsPerEpoch, warmupSteps: options.warmupSteps ?? Math.min(100, Math.max(1, Math.floor(steps / 3))) };
}

/** Reads an image; undefined (and noted) where it can't be read and that is allowed. */
async function readImage(source: ImageSource, skipUnreadable: boolean, skipped: SkippedImage[]): Promise<RasterImage | undefined> {
  try {
    const image = await source.load();
    checkRasterImage(image, source.name);
    return image;
  } catch (error) {
    if (!skipUnreadable || !(error instanceof InpFormerError)) throw error;
    skipped.push({ name: source.name, reason: error.message });
    return undefined;
  }
}

/** Speed and time left, over what was done since the start. */
class Pace {
  private readonly started = performance.now();

  at(done: number, total: number, imagesEach = 1): { imagesPerSecond: number; secondsLeft: number } {
    const seconds = (performance.now() - this.started) / 1000;
    return { imagesPerSecond: (done * imagesEach) / Math.max(seconds, 1e-9), secondsLeft: done > 0 ? (seconds / done) * (total - done) : Infinity };
  }
}

/** Fills the cache; returns the images that it holds, in the order of their indices there. */
async function encodeImages(engine: Engine, options: TrainOptions, { config, resize }: Settings, cache: FeatureCache, skipped: SkippedImage[]): Promise<ImageSource[]> {
  const { context } = engine;
  const batchSize = Math.min(context.adapter.isSoftware ? 1 : 8, options.images.length);
  const stage = await ImageStage.create(context, { resize: { width: resize, height: resize }, crop: config.crop, batchSize });
  const used: ImageSource[] = [];
  let memory: DeviceMemory | undefined;
  let executable: Executable | undefined;
  try {
    memory = await uploadEncoder(context, options.encoder, config);
    const compiled = (): Plan => compile({ target: context.target, outputs: encodingGraph(config, batchSize) });
    await tuneFor(engine, options, compiled);
    const plan = compiled();
    executable = await Executable.prepare(context, plan, new Map([...stage.tensors, ...memory.tensors]));
    const pace = new Pace();
    let waiting: ImageSource[] = [];
    const flush = async (last: RasterImage): Promise<void> => {
      await stage.ready(last);
      const features = await executable!.run({}, { before: (encoder) => stage.record(encoder, last, waiting.length - 1) });
      for (const [i, source] of waiting.entries()) {
        await cache.set(used.length, imageFeatures(features, i, batchSize));
        used.push(source);
      }
      waiting = [];
    };
    let held: RasterImage | undefined;
    for (const [i, source] of options.images.entries()) {
      throwIfAborted(options.signal, 'while encoding; nothing was trained yet');
      const image = await readImage(source, options.skipUnreadable ?? false, skipped);
      if (image) {
        if (held) await stage.load(held, waiting.length - 1);
        held = image;
        waiting.push(source);
        if (waiting.length === batchSize) {
          await flush(held);
          held = undefined;
        }
      }
      options.onProgress?.({ phase: 'encoding', done: i + 1, total: options.images.length, ...pace.at(i + 1, options.images.length) });
    }
    if (held) await flush(held);
  } finally {
    executable?.dispose();
    memory?.dispose();
    stage.dispose();
  }
  if (used.length === 0) throw new InputError(`None of the ${options.images.length} images can be read. ${skipped[0]?.reason ?? ''}`, { code: 'no-images' });
  return used;
}

async function tuneFor(engine: Engine, { tune = !engine.adapter.isSoftware, signal }: TrainOptions, plan: () => Plan): Promise<void> {
  if (tune) await engine.tune(plan(), signal && { signal });
}

/** All feature tensors of image `i` of a batch, one after another. */
function imageFeatures(features: Record<string, TensorData>, i: number, batchSize: number): Float32Array {
  const tensors = Object.values(features) as Float32Array[];
  const each = tensors[0]!.length / batchSize;
  const values = new Float32Array(tensors.length * each);
  tensors.forEach((t, n) => values.set(t.subarray(i * each, (i + 1) * each), n * each));
  return values;
}

interface Trained {
  readonly values: Map<string, Float32Array>;
  readonly finalLoss: number;
  readonly losses: readonly number[];
  readonly seconds: number;
  readonly imagesPerSecond: number;
}

async function runSteps(engine: Engine, options: TrainOptions, settings: Settings, plan: StepSchedule, cache: FeatureCache, used: readonly ImageSource[]): Promise<Trained> {
  const { config, seed, learningRate, finalLearningRate } = settings;
  const identity: CheckpointIdentity = {
    encoder: options.encoder.sha256, images: used.map((s) => s.name), resize: settings.resize, crop: config.crop.width, seed,
    ...plan, learningRate, finalLearningRate,
    model: { taps: config.taps, encoderGroups: config.encoderGroups, decoderGroups: config.decoderGroups, numPrototypes: config.numPrototypes, extractorDepth: config.extractorDepth, decoderDepth: config.decoderDepth },
  };
  const saved = options.resume ? await options.checkpoint?.load() : undefined;
  const start = saved ? readCheckpoint(saved, identity, config) : { step: 0, firstLoss: undefined, lastLoss: NaN, state: { values: initialTrainables(config, seed) } };
  await tuneFor(engine, options, () => planTrainingStep(config, plan.batchSize, engine.context.target).plan);
  const step = await TrainingStep.create(engine.context, config, plan.batchSize, start.state);
  const losses: number[] = [];
  let firstLoss = start.firstLoss;
  let finalLoss = start.lastLoss;
  const checkpointAt = async (at: number): Promise<Uint8Array> => {
    const state = await step.readState();
    for (const [name, data] of state.values) if (!data.every(Number.isFinite)) throw diverged(at - 1, finalLoss, `${name} is no longer finite`);
    return writeCheckpoint({ step: at, firstLoss, lastLoss: finalLoss, state }, identity);
  };
  const save = async (at: number): Promise<void> => {
    if (options.checkpoint && at > 0) await options.checkpoint.save(await checkpointAt(at));
  };
  // Whether a state is good shows in the loss that it gives, so it replaces the last good checkpoint only after that.
  let unproven: { step: number; bytes: Uint8Array } | undefined;
  try {
    const pace = new Pace();
    const started = performance.now();
    const pending: { step: number; learningRate: number; result: ReturnType<TrainingStep['run']> }[] = [];
    const settleOne = async (): Promise<void> => {
      const { step: at, learningRate: rate, result } = pending.shift()!;
      const { loss, norm } = await result;
      if (!Number.isFinite(loss) || !Number.isFinite(norm)) throw diverged(at, loss, `the loss is ${loss}, the gradient norm ${norm}`);
      losses.push(loss);
      firstLoss ??= loss;
      finalLoss = loss;
      const recent = losses.slice(-divergenceWindow);
      const average = recent.reduce((a, b) => a + b, 0) / recent.length;
      if (recent.length === divergenceWindow && average > 1.25 * firstLoss) throw diverged(at, loss, `the loss rose from ${firstLoss.toFixed(4)} to ${average.toFixed(4)}`);
      if (unproven && at >= unproven.step) {
        await options.checkpoint!.save(unproven.bytes);
        unproven = undefined;
      }
      options.onProgress?.({ phase: 'training', done: at + 1, total: plan.steps, step: at, loss, learningRate: rate, ...pace.at(at + 1 - start.step, plan.steps - start.step, plan.batchSize) });
    };
    const settleAll = async (): Promise<void> => { while (pending.length > 0) await settleOne(); };

    try {
      for (let at = start.step; at < plan.steps; at++) {
        if (options.signal?.aborted) {
          await settleAll();
          await save(at);
          throw new AbortedError(`Training was stopped after step ${at} of ${plan.steps}${options.checkpoint ? '; the checkpoint is kept' : ''}.`);
        }
        if (options.checkpoint && at > start.step && at % (options.checkpointEverySteps ?? 100) === 0) {
          await settleAll();
          unproven = { step: at, bytes: await checkpointAt(at) };
        }
        const batch = await Promise.all(batchAt(at, plan, used.length, seed).map((i) => cache.get(i)));
        const rate = learningRateAt(at, { base: learningRate, final: finalLearningRate, warmupSteps: plan.warmupSteps, totalSteps: plan.steps });
        const result = step.run(batch, at + 1, rate);
        result.catch(() => undefined); // reported when it is settled
        pending.push({ step: at, learningRate: rate, result });
        if (pending.length >= stepsAhead) await settleOne();
      }
      await settleAll();
    } catch (error) {
      await Promise.allSettled(pending.map((p) => p.result));
      throw error;
    }
    const seconds = (performance.now() - started) / 1000;
    const { values } = await step.readState();
    for (const [name, data] of values) if (!data.every(Number.isFinite)) throw diverged(plan.steps - 1, finalLoss, `${name} is no longer finite`);
    // So that nothing is lost if what comes after training fails.
    await save(plan.steps);
    return { values, finalLoss, losses, seconds, imagesPerSecond: (losses.length * plan.batchSize) / Math.max(seconds, 1e-9) };
  } finally {
    step.dispose();
  }
}

function diverged(step: number, loss: number, what: string): TrainingDivergedError {
  return new TrainingDivergedError(step, loss, `Training diverged at step ${step}: ${what}. The last good checkpoint is kept. Look for damaged images, or lower the learning rate.`);
}

/** Indices of the images of a step: each epoch is a shuffle of its own, its last incomplete batch dropped. */
export function batchAt(step: number, { stepsPerEpoch, batchSize }: Pick<StepSchedule, 'stepsPerEpoch' | 'batchSize'>, images: number, seed: number): number[] {
  const epoch = Math.floor(step / stepsPerEpoch);
  const order = new Random(`${seed}/epoch ${epoch}`).shuffle(Array.from({ length: images }, (_, i) => i));
  const begin = (step % stepsPerEpoch) * batchSize;
  return order.slice(begin, begin + batchSize);
}

async function calibrateOn(
  engine: Engine, options: TrainOptions, { config, resize }: Settings, values: ReadonlyMap<string, Float32Array>, used: readonly ImageSource[],
): Promise<{ calibration: Calibration; outliers: { name: string; score: number }[]; skippedImages: SkippedImage[] }> {
  const heldOut = options.calibrationImages !== undefined && options.calibrationImages.length > 0;
  const sources = heldOut ? options.calibrationImages : used;
  const network = await InspectionNetwork.create(engine, options.encoder, config, values, { resize, mapSize: defaultMapSize, batchSize: 1 });
  const skippedImages: SkippedImage[] = [];
  const results: (RawInspection & { name: string })[] = [];
  try {
    const pace = new Pace();
    for (const [i, source] of sources.entries()) {
      throwIfAborted(options.signal, 'while calibrating; the checkpoint holds the trained state');
      const image = await readImage(source, options.skipUnreadable ?? false, skippedImages);
      if (image) results.push({ ...(await network.run([image]))[0]!, name: source.name });
      options.onProgress?.({ phase: 'calibrating', done: i + 1, total: sources.length, ...pace.at(i + 1, sources.length) });
    }
  } finally {
    network.dispose();
  }
  if (results.length === 0) throw new InputError(`None of the ${sources.length} calibration images can be read. ${skippedImages[0]?.reason ?? ''}`, { code: 'no-images' });
  const scores = results.map((r) => r.score);
  return {
    calibration: calibrate({ scores, maps: results.map((r) => r.map), heldOut }),
    outliers: outlyingScores(scores).map((i) => ({ name: results[i]!.name, score: scores[i]! })),
    skippedImages,
  };
}

function throwIfAborted(signal: AbortSignal | undefined, when: string): void {
  if (signal?.aborted) throw new AbortedError(`Training was stopped ${when}.`);
}

function metadataOf({ encoder }: TrainOptions, { config, resize }: Settings, calibration: Calibration, training: TrainingRecord): ModelMetadata {
  return {
    version: 1,
    encoder: { name: encoder.name, sha256: encoder.sha256, numHeads: encoder.architecture.numHeads, architecture: encoder.architecture },
    resize, crop: config.crop.width, mapSize: defaultMapSize,
    taps: config.taps, encoderGroups: config.encoderGroups, decoderGroups: config.decoderGroups,
    numPrototypes: config.numPrototypes, extractorDepth: config.extractorDepth, decoderDepth: config.decoderDepth,
    calibration, training,
  };
}
