/**
 * What INP-Former++ adds to a training: other losses for the detector, and, once that is trained and stays as it is, a
 * segmentation head on its residuals. The head learns from defects made up on the normal images, and from a few real ones
 * where there are some. Their residuals are what counts, so each such image goes through encoder and detector once, and the
 * pool of them is trained on in epochs; or every step gets new ones, which costs an encoding for each.
 */
import type { ImageSource, RasterImage } from '../data/image.ts';
import { resizeAndCrop, sizeInWords, toSize, type Size } from '../data/preprocess.ts';
import type { PseudoAnomaly, RealDefect } from '../data/pseudo-anomaly.ts';
import { Random } from '../data/random.ts';
import { UsageError } from '../errors.ts';
import type { DeviceMemory } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile } from '../graph/plan.ts';
import { sizeOf } from '../graph/tensor.ts';
import { readModel, type HeadTrainingRecord, type ModelMetadata } from '../inspect/model-file.ts';
import type { DetectorConfig, ImageSize } from '../model/config.ts';
import { ImageStage, imagesLeaf } from '../model/image-stage.ts';
import { uploadEncoder, uploadTrainables } from '../model/memory.ts';
import { headLayers, headShapes } from '../model/parameters.ts';
import { plusObjective, residualGraph } from '../model/plus-objective.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { drawSample, readDefects, type DefectSource } from './defects.ts';
import { FeatureCache } from './feature-cache.ts';
import { HeadStep, planHeadStep, sampleSize } from './head-step.ts';
import { medianSize, noneReadable, readImage, type SkippedImage } from './images.ts';
import { Pace, runLoop, throwIfAborted, tuneFor, type Trained } from './loop.ts';
import { batchAt } from './schedule.ts';
import type { GivenDetector, ReadImages, Run, TrainingFraming, TrainOptions } from './train.ts';

export interface PlusOptions {
  /** Whether there is a segmentation head; default true. Without it the losses alone are INP-Former++'s. */
  readonly head?: boolean;
  /** Optimiser steps of the head. Default: 100 epochs, as in the paper, but at most 1000 steps. */
  readonly headSteps?: number;
  readonly headEpochs?: number;
  /** Peak learning rate of the head, default 5e-4; it ends at a tenth. */
  readonly headLearningRate?: number;
  /**
   * Images made for the head: so many, encoded once and trained on again and again, or 'fresh', each made for its step and
   * then forgotten. Default: 4 of each normal image, at least 128 and at most 1024.
   */
  readonly pseudoAnomalies?: number | 'fresh';
  /** Images that show through where a defect is made up; without them procedural textures and the images' own tiles. */
  readonly textures?: readonly ImageSource[];
  /** A few real defects (semi-supervised): they train the head alone. */
  readonly defects?: readonly DefectSource[];
  /** A model file's bytes: its detector stays as it is and gets a head, or its head is trained on. */
  readonly from?: Uint8Array;
}

export { plusObjective as objective };
export type { DefectSource } from './defects.ts';

/** @throws UsageError for options that are no such numbers or contradict each other; InputError for a damaged model */
export function checkedOptions(training: TrainOptions): { given: GivenDetector | undefined; framed: TrainOptions; head: boolean } {
  const options = training.plus ?? {};
  const { head = true, headSteps, headEpochs, headLearningRate = headRate, pseudoAnomalies, from } = options;
  for (const [name, value] of Object.entries({ headSteps, headEpochs, ...(pseudoAnomalies !== 'fresh' && { pseudoAnomalies }) })) {
    if (value !== undefined && (!Number.isInteger(value) || value < 1)) throw new UsageError(`${name} must be a positive integer, got ${value}.`);
  }
  if (headSteps !== undefined && headEpochs !== undefined) throw new UsageError('Give headSteps or headEpochs, not both.');
  if (!(Number.isFinite(headLearningRate) && headLearningRate >= 0)) throw new UsageError(`headLearningRate must be a finite number from 0, got ${headLearningRate}.`);
  if (!head) {
    const asked = ([['headSteps', headSteps], ['headEpochs', headEpochs], ['pseudoAnomalies', pseudoAnomalies], ['textures', options.textures], ['defects', options.defects], ['from', from]] as const).find(([, value]) => value !== undefined);
    if (asked) throw new UsageError(`${asked[0]} is for the segmentation head, and none is wanted (head: false): leave one of them out.`);
  }
  const given = from && givenDetector(from, training.encoder);
  return { head, given, framed: given ? framedAs(given.metadata, training) : training };
}

const headRate = 5e-4;
const priorLogit = -3;

function givenDetector(model: Uint8Array, encoder: EncoderWeights): GivenDetector {
  const { metadata, values, config } = readModel(model, encoder, 'the model to start from');
  const headNames = [...headShapes(config).keys()];
  const head = config.segmentationHead ? new Map(headNames.map((name) => [name, values.get(name)!])) : undefined;
  for (const name of headNames) values.delete(name);
  const { head: _, ...training } = metadata.training;
  return { metadata, training, values, head };
}

/** What of the options decides the result, for a checkpoint's identity. */
export function describe({ head = true, headSteps, headEpochs, headLearningRate = headRate, pseudoAnomalies, textures = [], defects = [], from }: PlusOptions): object {
  return {
    head, headSteps, headEpochs, headLearningRate, pseudoAnomalies, textures: textures.map(({ name }) => name), defects: defects.map(({ image, mask }) => [image.name, mask.name]),
    ...(from && { from: from.length }),
  };
}

/** The real defects, read before all else, so that what is wrong with them is known at once. */
export function defectsOf({ plus, skipUnreadable = false }: TrainOptions, resize: Size, { crop }: DetectorConfig, skipped: SkippedImage[]): Promise<RealDefect[]> {
  return readDefects(plus?.defects ?? [], { resize, crop, skipUnreadable, skipped });
}

/** The options that frame images as this model does. @throws UsageError where others were given */
function framedAs({ resize, crop, framing, view }: ModelMetadata, options: TrainOptions): TrainOptions {
  for (const [name, stored] of Object.entries({ resize, crop }) as ['resize' | 'crop', Size][]) {
    const asked = options[name];
    if (asked !== undefined && sizeInWords(asked) !== sizeInWords(stored)) {
      throw new UsageError(`The model was trained on images resized to ${sizeInWords(resize)} and cropped to ${sizeInWords(crop)}, now a ${name} of ${sizeInWords(asked)} is asked for: leave it out.`);
    }
  }
  const { keepAspect: _, tile: __, resize: ___, ...others } = options;
  const sizes = { resize: toSize(resize), crop: toSize(crop) };
  if (framing === 'tiles') return { ...others, crop: sizes.crop, tile: { ...(typeof options.tile === 'object' && options.tile), size: view } };
  return { ...others, ...sizes, ...(framing === 'keep-aspect' && { keepAspect: true }) };
}

/** The training images and their views, where none has to be encoded. */
export async function readableImages({ images: sources, skipUnreadable = false, signal }: TrainOptions, { views }: TrainingFraming, skipped: SkippedImage[]): Promise<ReadImages> {
  const images: ImageSource[] = [];
  const used: ImageSource[] = [];
  const origins: ImageSource[] = [];
  const sizes: ImageSize[] = [];
  for (const source of sources) {
    throwIfAborted(signal, 'while reading the images');
    const image = await readImage(source, skipUnreadable, skipped);
    if (!image) continue;
    images.push(source);
    for (const view of views?.(source, image) ?? [{ source, image }]) {
      used.push(view.source);
      origins.push(source);
      sizes.push({ width: view.image.width, height: view.image.height });
    }
  }
  if (images.length === 0) throw noneReadable(sources, skipped);
  return { images, used, origins, view: medianSize(sizes) };
}

const poolPerImage = 4;
const [leastPool, mostPool] = [128, 1024];
const defaultEpochs = 100;
const mostDefaultSteps = 1000;

/** Trains the segmentation head on a detector that stays as it is. */
export async function trainHead(run: Run, detector: Trained, skipped: SkippedImage[]): Promise<Trained & { record: HeadTrainingRecord }> {
  const { engine, options, settings, used, defects, saved, identity, checkpoints } = run;
  const { config, seed, given } = settings;
  const { plus = {} } = options;
  const { pseudoAnomalies = Math.min(mostPool, Math.max(leastPool, poolPerImage * used.length)), headLearningRate = headRate } = plus;
  const poolSize = pseudoAnomalies === 'fresh' ? used.length : pseudoAnomalies;
  const batchSize = Math.min(options.batchSize ?? 16, poolSize);
  const stepsPerEpoch = Math.floor(poolSize / batchSize);
  const steps = plus.headSteps ?? (plus.headEpochs !== undefined ? plus.headEpochs * stepsPerEpoch : Math.min(defaultEpochs * stepsPerEpoch, mostDefaultSteps));
  const schedule = { steps, batchSize, warmupSteps: Math.min(100, Math.max(1, Math.floor(steps / 3))), learningRate: headLearningRate, finalLearningRate: headLearningRate / 10 };

  const found = saved && checkpoints!.readCheckpoint(saved, identity, config);
  if (found?.detector && given && !sameValues(found.detector.values, given.values)) {
    throw new UsageError('The checkpoint belongs to another training: the model that it started from was another. Give the same model, or train without resuming.');
  }
  const start = found?.detector ? found : { step: 0, firstLoss: undefined, lastLoss: NaN, state: { values: given?.head ?? initialHead(config, seed) } };
  const samples = new HeadSamples(run, detector.values, skipped);
  const pool = new FeatureCache(samples.size, options.featureCache);
  let step: HeadStep | undefined;
  try {
    await samples.open();
    if (pseudoAnomalies !== 'fresh' && start.step < steps) {
      await fillPool(run, samples, pool, poolSize);
      samples.close();
    }
    await tuneFor(engine, options, () => planHeadStep(config, batchSize, engine.context.target).plan);
    const made = step = await HeadStep.create(engine.context, config, batchSize, start.state);
    const trained = await runLoop(options, {
      phase: 'training head', ...schedule, start,
      batch: (at) => (pseudoAnomalies === 'fresh'
        ? samples.make(Array.from({ length: batchSize }, (_, i) => at * batchSize + i))
        : Promise.all(batchAt(at, { stepsPerEpoch, batchSize }, poolSize, `${seed}/head`).map((i) => pool.get(i)))),
      run: (batch, t, rate) => made.run(batch, t, rate),
      readState: () => made.readState(),
      write: (position, state) => checkpoints!.writeCheckpoint({ ...position, state, detector }, identity),
    });
    return { ...trained, record: { ...schedule, seed, pseudoAnomalies, textures: plus.textures?.length ?? 0, defects: defects.length, finalLoss: trained.finalLoss } };
  } finally {
    step?.dispose();
    samples.close();
    await pool.dispose();
  }
}

function sameValues(a: ReadonlyMap<string, Float32Array>, b: ReadonlyMap<string, Float32Array>): boolean {
  return [...a].every(([name, values]) => values.every((value, i) => value === b.get(name)?.[i]));
}

/**
 * As He et al. (2015) for ReLU: weights from a normal of variance 2 / fan-in, biases 0; a stream of its own for each tensor.
 * The last bias says that a pixel is defective with a probability of about 0.05: at one half everywhere, the Dice loss has next
 * to no gradient.
 */
export function initialHead(config: DetectorConfig, seed: number): Map<string, Float32Array> {
  return new Map([...headShapes(config)].map(([name, shape]) => {
    const values = new Float32Array(sizeOf(shape));
    if (name === `head.${headLayers.length - 1}.bias`) values.fill(priorLogit);
    if (!name.endsWith('.weight')) return [name, values];
    const { kernel, stride } = headLayers[Number(name.split('.')[1])]!;
    const deviation = Math.sqrt(2 / (shape[0]! * (kernel / stride) ** 2));
    const random = new Random(`${seed}/${name}`);
    for (let i = 0; i < values.length; i++) values[i] = deviation * random.normal();
    return [name, values];
  }));
}

/** Encodes the pool, image by image of the normal ones, so that each is decoded once. */
async function fillPool({ options, used }: Run, samples: HeadSamples, pool: FeatureCache, size: number): Promise<void> {
  const order = Array.from({ length: size }, (_, i) => i).sort((a, b) => (a % used.length) - (b % used.length) || a - b);
  const pace = new Pace();
  for (let first = 0; first < size; first += samples.batchSize) {
    await pace.rest(options.gate?.());
    throwIfAborted(options.signal, 'while the pseudo-anomalies were encoded; the checkpoint holds the trained detector');
    const indices = order.slice(first, first + samples.batchSize);
    const made = await samples.make(indices);
    for (const [i, values] of made.entries()) await pool.set(indices[i]!, values);
    const done = first + indices.length;
    options.onProgress?.({ phase: 'pseudo-anomalies', done, total: size, ...pace.at(done, size) });
  }
}

/** Samples by number: sample i is a defect made up on normal image i (counted round and round), and only the seed decides which. */
class HeadSamples {
  readonly size: number;
  readonly batchSize: number;
  private readonly run: Run;
  private readonly detector: ReadonlyMap<string, Float32Array>;
  private readonly skipped: SkippedImage[];
  private network: { stage: ImageStage; memories: DeviceMemory[]; executable: Executable } | undefined;
  /** The normal image that was read last. */
  private last: { index: number; image: RasterImage } | undefined;

  constructor(run: Run, detector: ReadonlyMap<string, Float32Array>, skipped: SkippedImage[]) {
    const { residual, mask } = sampleSize(run.settings.config);
    this.size = residual + mask;
    this.batchSize = run.engine.context.adapter.isSoftware ? 1 : 8;
    this.run = run;
    this.detector = detector;
    this.skipped = skipped;
  }

  async open(): Promise<void> {
    const { engine, options, settings } = this.run;
    const { context } = engine;
    const config = { ...settings.config, segmentationHead: false };
    const stage = await ImageStage.create(context, { resize: config.crop, crop: config.crop, batchSize: this.batchSize });
    const memories: DeviceMemory[] = [];
    try {
      memories.push(await uploadEncoder(context, options.encoder, config), await uploadTrainables(context, this.detector, config));
      const plan = compile({ target: context.target, outputs: { residual: residualGraph(imagesLeaf(this.batchSize, config.crop), config) } });
      const executable = await Executable.prepare(context, plan, new Map([...stage.tensors, ...memories.flatMap((m) => [...m.tensors])]));
      this.network = { stage, memories, executable };
    } catch (error) {
      for (const memory of memories) memory.dispose();
      stage.dispose();
      throw error;
    }
  }

  close(): void {
    this.network?.executable.dispose();
    for (const memory of this.network?.memories ?? []) memory.dispose();
    this.network?.stage.dispose();
    this.network = undefined;
  }

  /** Residual and mask of each, one after the other, as the head's step takes them. */
  async make(indices: readonly number[]): Promise<Float32Array[]> {
    const made: Float32Array[] = [];
    for (let first = 0; first < indices.length; first += this.batchSize) {
      const samples: PseudoAnomaly[] = [];
      for (const index of indices.slice(first, first + this.batchSize)) samples.push(await this.draw(index));
      const residuals = await this.encode(samples.map(({ image }) => image));
      samples.forEach(({ mask }, i) => {
        const values = new Float32Array(this.size);
        values.set(residuals[i]!);
        values.set(mask, residuals[i]!.length);
        made.push(values);
      });
    }
    return made;
  }

  private async draw(index: number): Promise<PseudoAnomaly> {
    const { options, settings, used, defects } = this.run;
    const image = await this.normal(index % used.length);
    return drawSample(image, index, { seed: settings.seed, textures: options.plus?.textures, defects });
  }

  private async normal(index: number): Promise<RasterImage> {
    if (this.last?.index !== index) {
      const { settings, used } = this.run;
      // They could be read before; what can't be read now fails the training.
      const image = (await readImage(used[index]!, false, this.skipped))!;
      this.last = { index, image: resizeAndCrop(image, { resize: settings.resize, crop: settings.config.crop }) };
    }
    return this.last.image;
  }

  private async encode(images: readonly RasterImage[]): Promise<Float32Array[]> {
    const { stage, executable } = this.network!;
    for (const [slot, image] of images.slice(0, -1).entries()) await stage.load(image, slot);
    const last = images.at(-1)!;
    await stage.ready(last);
    const { residual } = await executable.run({}, { before: (encoder) => stage.record(encoder, last, images.length - 1) });
    const each = residual!.length / this.batchSize;
    return images.map((_, i) => (residual as Float32Array).slice(i * each, (i + 1) * each));
  }
}
