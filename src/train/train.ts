/**
 * Training on normal images: encode each once, train extractor, bottleneck and decoder on the cached features with one
 * plan and one submit a step, calibrate the threshold on images held out, and hand back an inspector and its model
 * file. The loss of a step is read while later steps run. Everything random comes from the seed, so the same images
 * and seed give the same bytes, interrupted and resumed or not.
 */
import type { ImageSource, RasterImage } from '../data/image.ts';
import type { RealDefect } from '../data/pseudo-anomaly.ts';
import type { Engine } from '../engine.ts';
import { InputError, UsageError } from '../errors.ts';
import type { DeviceMemory } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile, type Plan } from '../graph/plan.ts';
import type { TensorData } from '../graph/tensor.ts';
import type { Calibration } from '../inspect/calibration.ts';
import { Inspector, InspectionNetwork, type RawInspection } from '../inspect/inspector.ts';
import { configOf, writeModel, type CategoryRecord, type CoherenceKind, type ModelMetadata, type TrainingRecord } from '../inspect/model-file.ts';
import { detectorConfig, hasPrototypes, remembered, type DetectorConfig, type DetectorOptions } from '../model/config.ts';
import { encodingGraph, featureCount, type ObjectiveFunction, type ObjectiveOptions } from '../model/graphs.ts';
import { ImageStage } from '../model/image-stage.ts';
import { uploadEncoder } from '../model/memory.ts';
import { defaultMapSize } from '../model/scoring.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import type { CheckpointIdentity, CheckpointStore } from './checkpoint.ts';
import { FeatureCache, type FeatureCacheOptions } from './feature-cache.ts';
import type { CalibratedDetector, CalibrationSet, FewShotSources } from './few-shot.ts';
import { readImage, type SkippedImage } from './images.ts';
import { Pace, runLoop, throwIfAborted, tuneFor, type Trained } from './loop.ts';
import type { PlusOptions } from './plus.ts';
import type { Preview, PreviewOptions } from './preview.ts';
import { batchAt, type StepSchedule } from './schedule.ts';
import { planTrainingStep, TrainingStep } from './step.ts';
import { initialTrainables } from './trainables.ts';

export type { CheckpointStore } from './checkpoint.ts';
export type { SkippedImage } from './images.ts';
export type { DefectSource, PlusOptions } from './plus.ts';
export type { PreviewOptions, TrainingPreview } from './preview.ts';

export interface TrainOptions extends Omit<DetectorOptions, 'architecture' | 'crop' | 'distance' | 'segmentationHead'> {
  readonly encoder: EncoderWeights;
  /** Normal images; of several categories (see {@link ImageSource}) for one model of all, each with a threshold of its own. */
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
  /** Default 1e-3, with `plus` 5e-4. */
  readonly learningRate?: number;
  /** What the cosine ends at; default a tenth of `learningRate`'s default. */
  readonly finalLearningRate?: number;
  /** INP-Former++: its losses, and a segmentation head trained on pseudo-anomalies. What it needs is loaded only then. */
  readonly plus?: PlusOptions;
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
  /**
   * How to pause: asked before each image and each step. Where it gives a promise, training rests until the promise resolves,
   * with its GPU memory kept, and with the checkpoint saved if there are steps to save.
   */
  readonly gate?: () => Promise<void> | undefined;
  /** The map of one image while the detector is trained. What it needs is loaded only then. */
  readonly preview?: PreviewOptions;
  /**
   * Few-shot: trains on this many images of each category ({@link ImageSource.category}), drawn by the seed, in 22 views each
   * as the reference does; the other images are not looked at. Without `calibrationImages` the threshold comes from further
   * views of the shots.
   */
  readonly shots?: number;
  /** The method `memory`: most rows, drawn by the seed; default all tokens of all images. */
  readonly memoryRows?: number;
  /** The coherence loss, default `min`; `soft` is INP-Former++'s. */
  readonly coherence?: CoherenceKind;
  /** Whether the gradient is weighted towards what is reconstructed badly, default true. */
  readonly mining?: boolean;
}

export interface TrainProgress {
  /** With a segmentation head, 'pseudo-anomalies' (made and encoded) and 'training head' come before 'calibrating'. */
  readonly phase: 'encoding' | 'training' | 'pseudo-anomalies' | 'training head' | 'calibrating';
  readonly done: number;
  readonly total: number;
  readonly step?: number;
  readonly loss?: number;
  readonly learningRate?: number;
  readonly imagesPerSecond: number;
  readonly secondsLeft: number;
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
    /** The same of the segmentation head's training. */
    readonly head?: { readonly steps: number; readonly finalLoss: number; readonly losses: readonly number[]; readonly seconds: number; readonly imagesPerSecond: number };
    readonly skipped: readonly SkippedImage[];
    /** Images that the threshold was not calibrated on, because they score far above the others: look at them. */
    readonly outliers: readonly { readonly name: string; readonly score: number }[];
  };
}

/**
 * @throws UsageError, InputError (unreadable images), AllocationError, DeviceLostError;
 *   AbortedError when the signal fires, after the checkpoint is saved; TrainingDivergedError, with the last good checkpoint kept
 */
export async function trainInspector(engine: Engine, asked: TrainOptions): Promise<TrainResult> {
  const plus = asked.plus && await import('./plus.ts');
  const settings = resolveSettings(asked, plus?.checkedOptions(asked.plus!, asked.encoder));
  const { config } = settings;
  const { shots, memoryRows, coherence, mining } = asked;
  const objectiveOptions = coherence === undefined && mining === undefined && !plus ? {} : await (await import('./variants.ts')).objectiveOptionsOf(asked);
  const fewShot = shots === undefined ? undefined : (await import('./few-shot.ts')).fewShotSources(asked.images, shots, settings.seed, config.method);
  const options: TrainOptions = fewShot ? { ...asked, images: fewShot.images } : asked;
  const memory = config.method === 'memory' ? await import('./memory-bank.ts') : undefined;
  memory?.checkMemorySize(config, options.images.length, memoryRows);
  // What only those who keep checkpoints need is loaded only then.
  const checkpoints = options.checkpoint && await import('./checkpoint.ts');
  const saved = options.resume ? await options.checkpoint?.load() : undefined;
  const skipped: SkippedImage[] = [];
  const defects = plus ? await plus.defectsOf(options, settings.resize, config, skipped) : [];
  const cache = new FeatureCache(featureCount(config), options.featureCache);
  try {
    // The detector may stand already: then its images need not be encoded, only be readable.
    const isTrained = settings.given !== undefined || (saved !== undefined && checkpoints!.stageOf(saved) === 'head');
    const used = isTrained ? await plus!.readableImages(options, skipped) : await encodeImages(engine, options, settings, cache, skipped);
    const plan = memory ? noSteps : scheduleOf(options, used.length);
    const run: Run = { engine, options, settings, plan, used, defects, checkpoints, saved, identity: identityOf(options, settings, plan, used, plus?.describe(options.plus!)) };
    const remember = (indices: readonly number[]) => memory!.buildMemory(cache, indices, config, { memoryRows, seed: settings.seed });
    const detector = memory
      ? { ...await remember([...used.keys()]), finalLoss: 0, losses: [], seconds: 0, imagesPerSecond: 0 }
      : { ...await trainDetector(run, cache, plus?.objective, objectiveOptions), config };
    const head = config.segmentationHead ? await plus!.trainHead(run, detector, skipped) : undefined;
    const values = new Map([...detector.values, ...(head?.values ?? [])]);
    const calibrationSet = await calibrationSetOf(options, { config: detector.config, values }, used, fewShot, remember);
    const { outliers, skippedImages, ...calibrations } = await calibrateOn(engine, options, settings, calibrationSet, used);
    skipped.push(...skippedImages);
    const metadata = metadataOf(options, { ...settings, config: detector.config }, calibrations, {
      ...(settings.given?.training ?? {
        images: used.length, steps: plan.steps, batchSize: plan.batchSize, warmupSteps: plan.warmupSteps,
        learningRate: memory ? 0 : settings.learningRate, finalLearningRate: memory ? 0 : settings.finalLearningRate, seed: settings.seed, finalLoss: detector.finalLoss,
        ...(shots !== undefined && { shots }), ...(coherence && coherence !== 'min' && { coherence }), ...(mining === false && { mining }),
      }),
      ...(head && { head: head.record }),
    });
    const model = writeModel(values, metadata);
    const inspector = await Inspector.open(engine, model, options.encoder);
    const { losses, seconds, imagesPerSecond } = detector;
    return {
      inspector, model,
      record: {
        steps: settings.given ? 0 : plan.steps, finalLoss: detector.finalLoss, losses, seconds, imagesPerSecond, skipped, outliers,
        ...(head && { head: { steps: head.record.steps, finalLoss: head.finalLoss, losses: head.losses, seconds: head.seconds, imagesPerSecond: head.imagesPerSecond } }),
      },
    };
  } finally {
    await cache.dispose();
  }
}

const noSteps: StepSchedule = { steps: 0, warmupSteps: 0, batchSize: 0, stepsPerEpoch: 0 };

/** All that stays the same through a training. */
export interface Run {
  readonly engine: Engine;
  readonly options: TrainOptions;
  readonly settings: Settings;
  readonly plan: StepSchedule;
  /** The training images that can be read. */
  readonly used: readonly ImageSource[];
  /** Real ones, for the segmentation head. */
  readonly defects: readonly RealDefect[];
  /** How checkpoints are read and written, where they are kept; and the one to go on from. */
  readonly checkpoints: typeof import('./checkpoint.ts') | undefined;
  readonly saved: Uint8Array | undefined;
  readonly identity: CheckpointIdentity;
}

export interface Settings {
  /** Of the whole model, its segmentation head included. */
  readonly config: DetectorConfig;
  readonly resize: number;
  readonly seed: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  /** A trained detector that gets a head; it stays as it is. */
  readonly given: GivenDetector | undefined;
}

/** A detector from a model file. */
export interface GivenDetector {
  readonly metadata: ModelMetadata;
  readonly training: TrainingRecord;
  /** Without its head's. */
  readonly values: Map<string, Float32Array>;
  /** Its segmentation head's, where it has one. */
  readonly head: Map<string, Float32Array> | undefined;
}

function resolveSettings(options: TrainOptions, plus: { given: GivenDetector | undefined; head: boolean } | undefined): Settings {
  const given = plus?.given;
  const { encoder, images, resize = given?.metadata.resize ?? 448, crop = given?.metadata.crop ?? 392, seed = 1 } = options;
  const { learningRate = plus ? 5e-4 : 1e-3, finalLearningRate = plus ? 5e-5 : 1e-4 } = options;
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
  if (given && (resize !== given.metadata.resize || crop !== given.metadata.crop)) {
    throw new UsageError(`The model was trained on images resized to ${given.metadata.resize} and cropped to ${given.metadata.crop}, now ${resize} and ${crop} are asked for: leave them out.`);
  }
  // How many rows a memory gets is known when its images are encoded.
  const config = given ? { ...configOf(given.metadata), segmentationHead: true }
    : detectorConfig({ ...options, architecture: encoder.architecture, crop, memoryRows: options.method === 'memory' ? 1 : 0, ...(plus && { distance: 'cosine+l2', segmentationHead: plus.head }) });
  return { config, resize, seed, learningRate, finalLearningRate, given };
}

function scheduleOf(options: TrainOptions, images: number): StepSchedule {
  const batchSize = Math.min(options.batchSize ?? 16, images);
  const stepsPerEpoch = Math.floor(images / batchSize);
  const steps = options.steps ?? (options.epochs !== undefined ? options.epochs * stepsPerEpoch : Math.min(200 * stepsPerEpoch, 1000));
  return { steps, batchSize, stepsPerEpoch, warmupSteps: options.warmupSteps ?? Math.min(100, Math.max(1, Math.floor(steps / 3))) };
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
      await pace.rest(options.gate?.());
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

/** All feature tensors of image `i` of a batch, one after another. */
function imageFeatures(features: Record<string, TensorData>, i: number, batchSize: number): Float32Array {
  const tensors = Object.values(features) as Float32Array[];
  const each = tensors[0]!.length / batchSize;
  const values = new Float32Array(tensors.length * each);
  tensors.forEach((t, n) => values.set(t.subarray(i * each, (i + 1) * each), n * each));
  return values;
}

function identityOf({ encoder, coherence = 'min', mining = true }: TrainOptions, { config, resize, seed, learningRate, finalLearningRate }: Settings, plan: StepSchedule, used: readonly ImageSource[], plus: object | undefined): CheckpointIdentity {
  return {
    encoder: encoder.sha256, images: used.map((s) => s.name), resize, crop: config.crop.width, seed, ...plan, learningRate, finalLearningRate,
    model: { ...remembered(config), coherence, mining },
    ...(plus && { plus }),
  };
}

/** Trains all but the segmentation head, or takes it from where it was trained. */
async function trainDetector({ engine, options, settings, plan, used, checkpoints, saved, identity }: Run, cache: FeatureCache, objective: ObjectiveFunction | undefined, objectiveOptions: ObjectiveOptions): Promise<Trained> {
  const { given, seed, learningRate, finalLearningRate } = settings;
  const config = { ...settings.config, segmentationHead: false };
  const done = (values: Map<string, Float32Array>, finalLoss: number): Trained => ({ values, finalLoss, losses: [], seconds: 0, imagesPerSecond: 0 });
  if (given) return done(given.values, given.training.finalLoss);
  const found = saved && checkpoints!.readCheckpoint(saved, identity, settings.config);
  if (found?.detector) return done(found.detector.values, found.detector.finalLoss);
  const start = found ?? { step: 0, firstLoss: undefined, lastLoss: NaN, state: { values: initialTrainables(config, seed) } };
  const planOptions = { ...objectiveOptions, ...(objective && { objective }) };
  await tuneFor(engine, options, () => planTrainingStep(config, plan.batchSize, engine.context.target, planOptions).plan);
  const step = await TrainingStep.create(engine.context, config, plan.batchSize, start.state, planOptions);
  let preview: Preview | undefined;
  try {
    if (options.preview) preview = await (await import('./preview.ts')).Preview.create(engine, options.encoder, config, settings.resize, options.preview, step.trainables);
    return await runLoop(options, {
      phase: 'training', ...plan, learningRate, finalLearningRate, start,
      batch: (at) => Promise.all(batchAt(at, plan, used.length, seed).map((i) => cache.get(i))),
      run: (batch, t, rate) => step.run(batch, t, rate),
      readState: () => step.readState(),
      observe: (done, isLast) => preview?.observe(done, isLast),
      write: (position, state) => checkpoints!.writeCheckpoint({ ...position, state }, identity),
    });
  } finally {
    preview?.dispose();
    step.dispose();
  }
}

/** What the threshold comes from: images held out, of few shots what there is, or else the training images. */
async function calibrationSetOf(
  { calibrationImages = [] }: TrainOptions, trained: CalibratedDetector, used: readonly ImageSource[], fewShot: FewShotSources | undefined, remember: (indices: readonly number[]) => Promise<CalibratedDetector>,
): Promise<CalibrationSet> {
  const heldOut = calibrationImages.length > 0;
  if (fewShot && !heldOut) return (await import('./few-shot.ts')).fewShotCalibration(fewShot, trained, used, remember);
  const sources = heldOut ? calibrationImages : used;
  return { rounds: [async () => ({ ...trained, sources })], total: sources.length, heldOut };
}

async function calibrateOn(
  engine: Engine, options: TrainOptions, { resize }: Settings, { rounds, total, ...about }: CalibrationSet, used: readonly ImageSource[],
): Promise<{ calibration: Calibration; categories?: CategoryRecord[]; zeroShotCalibration?: Calibration; outliers: { name: string; score: number }[]; skippedImages: SkippedImage[] }> {
  const skippedImages: SkippedImage[] = [];
  const results: (RawInspection & ImageSource)[] = [];
  const pace = new Pace();
  let done = 0;
  for (const round of rounds) {
    const { config, values, sources } = await round();
    const network = await InspectionNetwork.create(engine, options.encoder, config, values, { resize, mapSize: defaultMapSize, batchSize: 1, mode: hasPrototypes(config) ? 'both' : 'trained' });
    try {
      for (const source of sources) {
        await pace.rest(options.gate?.());
        throwIfAborted(options.signal, 'while calibrating; the checkpoint holds the trained state');
        const image = await readImage(source, options.skipUnreadable ?? false, skippedImages);
        if (image) results.push({ ...source, ...(await network.run([image]))[0]! });
        done++;
        options.onProgress?.({ phase: 'calibrating', done, total, ...pace.at(done, total) });
      }
    } finally {
      network.dispose();
    }
  }
  if (results.length === 0) throw new InputError(`None of the ${total} calibration images can be read. ${skippedImages[0]?.reason ?? ''}`, { code: 'no-images' });
  // Loaded when the training that needs it is done.
  const { calibrate, outlyingScores } = await import('../inspect/calibration.ts');
  const calibrated = (of: readonly Pick<RawInspection, 'score' | 'map'>[]) => calibrate({ scores: of.map((r) => r.score), maps: of.map((r) => r.map), ...about });
  const scores = results.map((r) => r.score);
  const names = [...new Set(used.map(({ category }) => category))].filter((name) => name !== undefined);
  const zeroShots = results.flatMap(({ zeroShot }) => (zeroShot ? [zeroShot] : []));
  return {
    calibration: calibrated(results),
    ...(names.length > 1 && { categories: (await import('./categories.ts')).calibrateCategories(names, results, used, about) }),
    ...(zeroShots.length > 0 && { zeroShotCalibration: calibrated(zeroShots) }),
    outliers: outlyingScores(scores).map((i) => ({ name: results[i]!.name, score: scores[i]! })),
    skippedImages,
  };
}

function metadataOf({ encoder }: TrainOptions, { config, resize }: Settings, calibrations: Pick<ModelMetadata, 'calibration' | 'categories' | 'zeroShotCalibration'>, training: TrainingRecord): ModelMetadata {
  return {
    version: 1,
    encoder: { name: encoder.name, sha256: encoder.sha256, numHeads: encoder.architecture.numHeads, architecture: encoder.architecture },
    resize, crop: config.crop.width, mapSize: defaultMapSize,
    ...remembered(config), ...calibrations, training,
  };
}
