/**
 * Training on normal images: encode each once, train extractor, bottleneck and decoder on the cached features with one
 * plan and one submit a step, calibrate the threshold on images held out, and hand back an inspector and its model
 * file. The loss of a step is read while later steps run. Everything random comes from the seed, so the same images
 * and seed give the same bytes, interrupted and resumed or not.
 */
import type { ImageSource, RasterImage } from '../data/image.ts';
import type { RealDefect } from '../data/pseudo-anomaly.ts';
import { toSize, type Size } from '../data/preprocess.ts';
import type { Engine } from '../engine.ts';
import { InputError, UsageError } from '../errors.ts';
import type { DeviceMemory } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile, type Plan } from '../graph/plan.ts';
import type { TensorData } from '../graph/tensor.ts';
import type { Calibration } from '../inspect/calibration.ts';
import type { FramedModel } from '../inspect/framed.ts';
import { Inspector, InspectionNetwork, type RawInspection } from '../inspect/inspector.ts';
import { configOf, writeModel, type CategoryRecord, type CoherenceKind, type Framing, type ModelMetadata, type TrainingRecord } from '../inspect/model-file.ts';
import { detectorConfig, hasPrototypes, remembered, type DetectorConfig, type DetectorOptions, type ImageSize } from '../model/config.ts';
import { encodingGraph, featureCount, type ObjectiveFunction, type ObjectiveOptions } from '../model/graphs.ts';
import { ImageStage } from '../model/image-stage.ts';
import { uploadEncoder } from '../model/memory.ts';
import { mapSizeFor } from '../model/scoring.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import type { CheckpointIdentity, CheckpointStore } from './checkpoint.ts';
import { FeatureCache, type FeatureCacheOptions } from './feature-cache.ts';
import type { CalibratedDetector, CalibrationSet, FewShotSources } from './few-shot.ts';
import { compactSize, medianSize, noneReadable, readImage, type SkippedImage } from './images.ts';
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
  /** What images are resized to (a square's side, or both), pixels; default 8/7 of the crop, which is 448 of 392. With `keepAspect` and `tile` the crop. */
  readonly resize?: Size;
  /** The centre crop, multiples of the patch size; default 392. */
  readonly crop?: Size;
  /**
   * Resizes without distortion: one scale for both axes. A number for `crop` then says how many pixels (its square), and the
   * shape is that of the median training image, on whole patches. Stored in the model; inspections follow.
   */
  readonly keepAspect?: boolean;
  /**
   * Cuts the images into tiles of this size, for defects that vanish when a whole image is made small. Stored in the model;
   * inspections follow. Real defects of `plus` are then images of one tile.
   */
  readonly tile?: boolean | TrainingTileOptions;
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

export interface TrainingTileOptions {
  /** A tile's pixels in the source image; that of the crop (each pixel one pixel) by default. */
  readonly size?: Size;
  /** Trains on so many tiles of each image, drawn by the seed; on all by default. */
  readonly perImage?: number;
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
  const settings = await resolveSettings(asked, plus?.checkedOptions(asked));
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
    const { images, used, origins, view } = isTrained ? await plus!.readableImages(options, settings.training, skipped) : await encodeImages(engine, options, settings, cache, skipped);
    const plan = memory ? noSteps : scheduleOf(options, used.length);
    const run: Run = { engine, options, settings, plan, used, defects, checkpoints, saved, identity: identityOf(options, settings, plan, used, plus?.describe(options.plus!)) };
    const remember = (indices: readonly number[]) => memory!.buildMemory(cache, indices, config, { memoryRows, seed: settings.seed });
    const detector = memory
      ? { ...await remember([...used.keys()]), finalLoss: 0, losses: [], seconds: 0, imagesPerSecond: 0 }
      : { ...await trainDetector(run, cache, plus?.objective, objectiveOptions), config };
    const head = config.segmentationHead ? await plus!.trainHead(run, detector, skipped) : undefined;
    const values = new Map([...detector.values, ...(head?.values ?? [])]);
    const framed = { ...settings.framed, view: settings.given?.metadata.view ?? view };
    const calibrationSet = await calibrationSetOf(options, { config: detector.config, values }, images, origins, fewShot, remember);
    const { outliers, skippedImages, ...calibrations } = await calibrateOn(engine, options, framed, calibrationSet, images);
    skipped.push(...skippedImages);
    const metadata = metadataOf(options, { ...settings, config: detector.config }, framed, calibrations, {
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
  /** What is trained on, of the images that can be read: they, or views of them. */
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
  readonly resize: ImageSize;
  readonly framed: Omit<FramedModel, 'view'>;
  readonly training: TrainingFraming;
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

async function resolveSettings(options: TrainOptions, plus: { given: GivenDetector | undefined; framed: TrainOptions; head: boolean } | undefined): Promise<Settings> {
  const given = plus?.given;
  const { encoder, images, seed = 1 } = options;
  const { learningRate = plus ? 5e-4 : 1e-3, finalLearningRate = plus ? 5e-5 : 1e-4 } = options;
  if (images.length === 0) throw new InputError('There are no images to train on: give at least one normal image.', { code: 'no-images' });
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
  const framed = plus?.framed ?? options;
  const training = framed.keepAspect || framed.tile ? await (await import('./framing.ts')).framingOf(framed) : stretched(framed);
  const { resize, crop, framing } = training;
  // How many rows a memory gets is known when its images are encoded.
  const config = given ? { ...configOf(given.metadata), segmentationHead: true }
    : detectorConfig({ ...options, architecture: encoder.architecture, crop, memoryRows: options.method === 'memory' ? 1 : 0, ...(plus && { distance: 'cosine+l2', segmentationHead: plus.head }) });
  return {
    config, resize, seed, learningRate, finalLearningRate, given, training,
    framed: { resize: compactSize(resize), crop: compactSize(crop), mapSize: compactSize(mapSizeFor(crop)), framing },
  };
}

/** How images are framed, and into which views the encoder gets them. */
export interface TrainingFraming {
  readonly framing: Framing;
  readonly resize: ImageSize;
  readonly crop: ImageSize;
  /** Source pixels of a tile. */
  readonly tile?: ImageSize;
  /** What the encoder gets of an image, and where it can be had again; undefined for the image itself. */
  views?(source: ImageSource, image: RasterImage): Iterable<TrainingView>;
}

export interface TrainingView {
  readonly source: ImageSource;
  readonly image: RasterImage;
}

/** Every image to the same shape, whatever its own, as in the reference. */
function stretched({ crop = 392, resize }: TrainOptions): TrainingFraming {
  const to = toSize(crop, 'crop');
  const whole = (side: number): number => Math.round((side * 448) / 392);
  const from = resize === undefined ? { height: whole(to.height), width: whole(to.width) } : toSize(resize, 'resize');
  return { framing: 'stretch', resize: from, crop: to };
}

function scheduleOf(options: TrainOptions, images: number): StepSchedule {
  const batchSize = Math.min(options.batchSize ?? 16, images);
  const stepsPerEpoch = Math.floor(images / batchSize);
  const steps = options.steps ?? (options.epochs !== undefined ? options.epochs * stepsPerEpoch : Math.min(200 * stepsPerEpoch, 1000));
  return { steps, batchSize, stepsPerEpoch, warmupSteps: options.warmupSteps ?? Math.min(100, Math.max(1, Math.floor(steps / 3))) };
}

export interface ReadImages {
  /** The images that could be read. */
  readonly images: readonly ImageSource[];
  /** Their views, in the order in which a cache holds them. */
  readonly used: readonly ImageSource[];
  /** The image that each view is of. */
  readonly origins: readonly ImageSource[];
  /** The size of the median view. */
  readonly view: Size;
}

/** Fills the cache. */
async function encodeImages(engine: Engine, options: TrainOptions, { config, resize, training }: Settings, cache: FeatureCache, skipped: SkippedImage[]): Promise<ReadImages> {
  const { context } = engine;
  const batchSize = Math.min(context.adapter.isSoftware ? 1 : 8, options.images.length);
  const stage = await ImageStage.create(context, { resize, crop: config.crop, batchSize });
  const images: ImageSource[] = [];
  const used: ImageSource[] = [];
  const origins: ImageSource[] = [];
  const sizes: ImageSize[] = [];
  let memory: DeviceMemory | undefined;
  let executable: Executable | undefined;
  try {
    memory = await uploadEncoder(context, options.encoder, config);
    const compiled = (): Plan => compile({ target: context.target, outputs: encodingGraph(config, batchSize) });
    await tuneFor(engine, options, compiled);
    const plan = compiled();
    executable = await Executable.prepare(context, plan, new Map([...stage.tensors, ...memory.tensors]));
    const pace = new Pace();
    let waiting = 0;
    let encoded = 0;
    const flush = async (last: RasterImage): Promise<void> => {
      await stage.ready(last);
      const features = await executable!.run({}, { before: (encoder) => stage.record(encoder, last, waiting - 1) });
      for (let i = 0; i < waiting; i++) await cache.set(encoded++, imageFeatures(features, i, batchSize));
      waiting = 0;
    };
    let held: RasterImage | undefined;
    for (const [i, source] of options.images.entries()) {
      await pace.rest(options.gate?.());
      throwIfAborted(options.signal, 'while encoding; nothing was trained yet');
      const image = await readImage(source, options.skipUnreadable ?? false, skipped);
      if (image) images.push(source);
      for (const view of image ? training.views?.(source, image) ?? [{ source, image }] : []) {
        throwIfAborted(options.signal, 'while encoding; nothing was trained yet');
        used.push(view.source);
        origins.push(source);
        sizes.push({ width: view.image.width, height: view.image.height });
        if (held) await stage.load(held, waiting - 1);
        held = view.image;
        if (++waiting === batchSize) {
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
  if (images.length === 0) throw noneReadable(options.images, skipped);
  return { images, used, origins, view: medianSize(sizes) };
}

/** All feature tensors of image `i` of a batch, one after another. */
function imageFeatures(features: Record<string, TensorData>, i: number, batchSize: number): Float32Array {
  const tensors = Object.values(features) as Float32Array[];
  const each = tensors[0]!.length / batchSize;
  const values = new Float32Array(tensors.length * each);
  tensors.forEach((t, n) => values.set(t.subarray(i * each, (i + 1) * each), n * each));
  return values;
}

function identityOf(
  { encoder, coherence = 'min', mining = true }: TrainOptions, { config, framed: { resize, crop, framing }, training: { tile }, seed, learningRate, finalLearningRate }: Settings,
  plan: StepSchedule, used: readonly ImageSource[], plus: object | undefined,
): CheckpointIdentity {
  return {
    encoder: encoder.sha256, images: used.map((s) => s.name), resize, crop, framing, ...(tile && { tile: compactSize(tile) }), seed, ...plan, learningRate, finalLearningRate,
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
    if (options.preview) preview = await (await import('./preview.ts')).Preview.create(engine, options.encoder, config, settings, options.preview, step.trainables);
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
  { calibrationImages = [] }: TrainOptions, trained: CalibratedDetector, images: readonly ImageSource[], origins: readonly ImageSource[], fewShot: FewShotSources | undefined, remember: (indices: readonly number[]) => Promise<CalibratedDetector>,
): Promise<CalibrationSet> {
  const heldOut = calibrationImages.length > 0;
  if (fewShot && !heldOut) return (await import('./few-shot.ts')).fewShotCalibration(fewShot, trained, origins, remember);
  const sources = heldOut ? calibrationImages : images;
  return { rounds: [async () => ({ ...trained, sources })], total: sources.length, heldOut };
}

async function calibrateOn(
  engine: Engine, options: TrainOptions, framed: FramedModel, { rounds, total, ...about }: CalibrationSet, images: readonly ImageSource[],
): Promise<{ calibration: Calibration; categories?: CategoryRecord[]; zeroShotCalibration?: Calibration; outliers: { name: string; score: number }[]; skippedImages: SkippedImage[] }> {
  const skippedImages: SkippedImage[] = [];
  const results: (Judged & { readonly zeroShot?: Judged } & ImageSource)[] = [];
  const pace = new Pace();
  let done = 0;
  for (const round of rounds) {
    const { config, values, sources } = await round();
    const modes = !hasPrototypes(config) ? ['trained'] as const : framed.framing === 'stretch' ? ['both'] as const : ['trained', 'zero-shot'] as const;
    const networks: InspectionNetwork[] = [];
    try {
      const batchSize = framed.framing === 'tiles' && !engine.adapter.isSoftware ? 8 : 1;
      for (const mode of modes) networks.push(await InspectionNetwork.create(engine, options.encoder, config, values, { ...framed, batchSize, mode }));
      for (const source of sources) {
        await pace.rest(options.gate?.());
        throwIfAborted(options.signal, 'while calibrating; the checkpoint holds the trained state');
        const image = await readImage(source, options.skipUnreadable ?? false, skippedImages);
        if (image) results.push({ ...source, ...await judgedBy(networks, image, framed, options.signal) });
        done++;
        options.onProgress?.({ phase: 'calibrating', done, total, ...pace.at(done, total) });
      }
    } finally {
      for (const network of networks) network.dispose();
    }
  }
  if (results.length === 0) throw new InputError(`None of the ${total} calibration images can be read. ${skippedImages[0]?.reason ?? ''}`, { code: 'no-images' });
  // Loaded when the training that needs it is done.
  const { calibrate, outlyingScores } = await import('../inspect/calibration.ts');
  const calibrated = (of: readonly Pick<RawInspection, 'score' | 'map'>[]) => calibrate({ scores: of.map((r) => r.score), maps: of.map((r) => r.map), ...about });
  const scores = results.map((r) => r.score);
  const zeroShots = results.flatMap(({ zeroShot }) => (zeroShot ? [zeroShot] : []));
  return {
    calibration: calibrated(results),
    ...(images.some(({ category }) => category !== images[0]!.category) && { categories: (await import('./categories.ts')).calibrateCategories(results, images, about) }),
    ...(zeroShots.length > 0 && { zeroShotCalibration: calibrated(zeroShots) }),
    outliers: outlyingScores(scores).map((i) => ({ name: results[i]!.name, score: scores[i]! })),
    skippedImages,
  };
}

type Judged = Pick<RawInspection, 'score' | 'map'>;

/** The trained and, where there is one, the zero-shot result; of an image that is not just stretched each comes from a network of its own. */
async function judgedBy(networks: readonly InspectionNetwork[], image: RasterImage, framed: FramedModel, signal: AbortSignal | undefined): Promise<Judged & { zeroShot?: Judged }> {
  if (framed.framing === 'stretch') {
    const { score, map, zeroShot } = (await networks[0]!.run([image]))[0]!;
    return { score, map, ...(zeroShot && { zeroShot }) };
  }
  const [trained, zeroShot] = await (await import('./framing.ts')).judgedAsFramed(networks, image, framed, signal);
  return { ...trained!, ...(zeroShot && { zeroShot }) };
}

function metadataOf({ encoder }: TrainOptions, { config }: Settings, framed: FramedModel, calibrations: Pick<ModelMetadata, 'calibration' | 'categories' | 'zeroShotCalibration'>, training: TrainingRecord): ModelMetadata {
  return {
    version: 1,
    encoder: { name: encoder.name, sha256: encoder.sha256, numHeads: encoder.architecture.numHeads, architecture: encoder.architecture },
    ...framed, ...remembered(config), ...calibrations, training,
  };
}
