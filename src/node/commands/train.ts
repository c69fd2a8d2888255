/**
 * `inp-former train`: folders of normal images become a model file: one model of all categories, or with `--setting single`
 * a folder with one for each. What can fail cheaply fails first: options, folders, place to write, encoder, adapter. A run
 * that is stopped leaves `<out>.checkpoint`, from which `--resume` goes on.
 */
import { existsSync } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { sizeInWords, toSize, type Size } from '../../data/preprocess.ts';
import { InputError, UsageError } from '../../errors.ts';
import type { Engine } from '../../index.ts';
import type { CoherenceKind, ModelMetadata } from '../../inspect/model-file.ts';
import type { DecoderKind, Method } from '../../model/config.ts';
import { trainInspector, type CheckpointStore, type PlusOptions } from '../../train/train.ts';
import type { EncoderWeights } from '../../weights/encoder.ts';
import { modelFileName, openDatasets, splitCategories, type OpenCategory } from '../dataset.ts';
import { fileError, makeFolder, readFileChecked, writeFileAtomic } from '../files.ts';
import { openSpillFile } from '../spill.ts';
import { anomalySources } from './anomaly-sources.ts';
import { byteSize, duration, type CommandContext, type CommonOptions } from './context.ts';
import { openEncoder } from './encoders.ts';
import { prepareOutputFile } from './output.ts';

/** What is trained, and how: the same for one model and for many. */
export interface TrainingSettings {
  readonly resize?: Size;
  readonly crop?: Size;
  readonly keepAspect?: boolean;
  readonly tile?: Size | true;
  readonly tilesPerImage?: number;
  readonly steps?: number;
  readonly epochs?: number;
  readonly warmup?: number;
  readonly batchSize: number;
  readonly limit?: number;
  readonly seed: number;
  /** False: all images are trained on, as published protocols do, and the threshold comes from them too. */
  readonly holdOut?: boolean;
  readonly tune?: boolean;
  readonly skipUnreadable?: boolean;
  readonly plus?: boolean;
  readonly textures?: string;
  readonly defects?: string;
  readonly defectLimit?: number;
  readonly headSteps?: number;
  readonly headEpochs?: number;
  readonly pseudoAnomalies?: number | 'fresh';
  /** False with --no-head. */
  readonly head: boolean;
  readonly from?: string;
  readonly shots?: number;
  readonly method: Method;
  readonly memoryRows?: number;
  readonly prototypes: number;
  readonly decoder: DecoderKind;
  readonly neighbourhood: number;
  readonly residual?: boolean;
  readonly coherence: CoherenceKind;
  readonly mining: boolean;
}

export interface TrainCommandOptions extends CommonOptions, TrainingSettings {
  readonly data: readonly string[];
  readonly categories?: readonly string[];
  readonly setting: 'multi' | 'single';
  readonly out: string;
  readonly encoder: string;
  readonly resume?: boolean;
}

export async function train(options: TrainCommandOptions, context: CommandContext): Promise<number> {
  const { data, out, setting, resume = false } = options;
  checkSizes(options);
  const plus = await plusOptions(options, context);
  if (options.method === 'memory') {
    if ((options.steps ?? options.epochs ?? options.warmup ?? (resume && setting === 'multi' ? true : undefined)) !== undefined) throw new UsageError('--method memory trains nothing: leave out --steps, --epochs, --warmup and --resume.');
    if (plus) throw new UsageError('--method memory trains nothing: leave out --plus.');
  }
  if (setting === 'multi') await prepareOutput(out, resume, context);
  else await prepareFolder(out);

  const { categories } = await openDatasets(data, {
    purpose: 'training', ...(options.categories && { only: options.categories }),
    say: (line) => context.field('Data', line), warn: (text) => context.warn(text),
  });
  const encoder = await openEncoder(options.encoder, context);
  const engine = await context.engine(options.adapter);
  try {
    if (setting === 'multi') {
      const result = await trainModel(engine, encoder, categories, { ...options, ...(plus && { plusOptions: plus }), out, resume }, context);
      context.say(`\nNext: inp-former inspect --model ${quoted(out)} IMAGE…`);
      context.result({ command: 'train', ...result });
      return 0;
    }
    const models: object[] = [];
    for (const [i, category] of categories.entries()) {
      const file = join(out, modelFileName(category.name));
      context.say(`\n${category.name} (${i + 1} of ${categories.length})`);
      if (resume && existsSync(file)) {
        context.field('Model', `${file} is there`);
        models.push({ category: category.name, model: file, kept: true });
        continue;
      }
      const goesOn = resume && existsSync(`${file}.checkpoint`);
      models.push({ category: category.name, ...await trainModel(engine, encoder, [category], { ...options, ...(plus && { plusOptions: plus }), out: file, resume: goesOn }, context) });
    }
    context.say(`\nNext: inp-former evaluate --model ${quoted(out)} ${data.map((folder) => `--data ${quoted(folder)}`).join(' ')}`);
    context.result({ command: 'train', setting, out, models });
    return 0;
  } finally {
    engine.dispose();
  }
}

export interface TrainModelOptions extends TrainingSettings {
  /** What the options of INP-Former++ came to. */
  readonly plusOptions?: PlusOptions;
  readonly out: string;
  readonly resume: boolean;
}

/** Trains one model on the normal images of all the categories, writes it to `out` and says how it went. */
export async function trainModel(engine: Engine, encoder: EncoderWeights, categories: readonly OpenCategory[], options: TrainModelOptions, context: CommandContext): Promise<object> {
  const { out, resume, resize, crop, steps, epochs, warmup, batchSize, limit, seed, tune, holdOut = true, skipUnreadable = false, plusOptions: plus } = options;
  const started = performance.now();
  const { shots, method, memoryRows } = options;
  const isMemory = method === 'memory';
  // The shots are drawn by trainInspector, and nothing else is looked at.
  const split = splitCategories(categories, { limit, holdOut: holdOut && shots === undefined });
  if (shots === undefined) for (const rule of split.rules) context.field('Images', rule);
  else context.field('Images', `${shots} of ${categories.map(({ name, train: { length } }) => (categories.length > 1 ? `${length} of ${name}` : String(length))).join(', ')}, drawn by the seed; the others are not looked at`);
  const checkpointFile = `${out}.checkpoint`;
  const progress = context.progress();
  try {
    const { inspector, model, record } = await trainInspector(engine, {
      encoder,
      images: split.train,
      // Where none can be held out, calibration happens on the training images, which trainInspector knows by their absence here.
      ...(split.heldOut && { calibrationImages: split.calibration }),
      batchSize, seed, skipUnreadable, resume,
      ...(resize !== undefined && { resize }),
      ...(crop !== undefined && { crop }),
      ...(options.keepAspect && { keepAspect: true }),
      ...(options.tile !== undefined && { tile: { ...(options.tile !== true && { size: options.tile }), ...(options.tilesPerImage !== undefined && { perImage: options.tilesPerImage }) } }),
      ...(plus && { plus }),
      ...detectorSettings(options),
      ...(shots !== undefined && { shots }),
      ...(memoryRows !== undefined && { memoryRows }),
      ...(steps !== undefined && { steps }),
      ...(epochs !== undefined && { epochs }),
      ...(warmup !== undefined && { warmupSteps: warmup }),
      ...(tune !== undefined && { tune }),
      signal: context.signal,
      onProgress: progress.onTraining,
      checkpoint: checkpointStore(checkpointFile),
      featureCache: { spill: openSpillFile },
    });
    progress.end();
    const { metadata } = inspector;
    const { calibration, categories: records, training, memoryRows: storedRows } = metadata;
    inspector.dispose();
    await writeFileAtomic(out, model);
    await rm(checkpointFile, { force: true });

    for (const { name, reason } of record.skipped) context.warn(`skipped ${name}: ${reason}`);
    for (const { name, score } of record.outliers) context.warn(`${name} scores ${score.toPrecision(3)}, far above the other normal images: the threshold leaves it aside; look whether it is defective.`);
    if (shots !== undefined && !(isMemory && shots > 1)) context.warn('the threshold comes from views of the shots alone, which say little of how parts differ: look at the scores of new good parts, and give --threshold.');
    const seconds = (performance.now() - started) / 1000;
    if (isMemory) context.field('Memory', `${storedRows} tokens of ${training.images} ${shots === undefined ? 'images' : 'views'}`);
    if (record.steps > 0) context.field('Trained', `${record.steps} steps in ${duration(record.seconds)}, ${record.imagesPerSecond.toPrecision(3)} images/s, final loss ${record.finalLoss.toFixed(4)}`);
    if (record.head) context.field('Head', `${record.head.steps} steps in ${duration(record.head.seconds)}, ${record.head.imagesPerSecond.toPrecision(3)} images/s, final loss ${record.head.finalLoss.toFixed(4)}`);
    context.field('Phases', Object.entries(progress.seconds).map(([phase, time]) => `${phase} ${duration(time)}`).join(', '));
    if (metadata.framing !== 'stretch') context.field('Images seen', framingInWords(metadata));
    context.field('Threshold', `${calibration.threshold.toPrecision(4)} (${calibration.rule})`);
    if (records) context.field('Categories', records.map(({ name, calibration: own }) => `${name} ${own.threshold.toPrecision(4)}`).join(', '));
    context.field('Model', `${out} (${byteSize(model.length)})`);
    return {
      model: out,
      bytes: model.length,
      images: { train: shots === undefined ? split.train.length : training.images, calibration: split.calibration.length, heldOut: split.heldOut, skipped: record.skipped, outliers: record.outliers },
      method,
      ...(shots !== undefined && { shots }),
      ...(isMemory && { memoryRows: storedRows }),
      steps: record.steps,
      finalLoss: record.finalLoss,
      ...(record.head && { head: { steps: record.head.steps, finalLoss: record.head.finalLoss, imagesPerSecond: record.head.imagesPerSecond, seconds: record.head.seconds } }),
      threshold: calibration.threshold,
      calibration,
      ...(records && { categories: records }),
      resize: metadata.resize, crop: metadata.crop, framing: metadata.framing, view: metadata.view,
      encoder: { name: encoder.name, sha256: encoder.sha256 },
      adapter: { name: engine.adapter.name, isSoftware: engine.adapter.isSoftware },
      imagesPerSecond: record.imagesPerSecond,
      seconds: { ...progress.seconds, training: record.seconds, total: seconds },
    };
  } catch (error) {
    progress.end();
    if (existsSync(checkpointFile)) context.say(`The state of the training is kept in ${checkpointFile}; the same command with --resume goes on from there.`);
    throw error;
  }
}

/** What `--plus` and the flags that go with it ask for; undefined without. */
async function plusOptions(options: TrainingSettings, context: CommandContext): Promise<PlusOptions | undefined> {
  const { plus = false, head, headSteps, headEpochs, pseudoAnomalies, from } = options;
  if (!plus) {
    const flags = { textures: '--textures', defects: '--defects', defectLimit: '--defect-limit', headSteps: '--head-steps', headEpochs: '--head-epochs', pseudoAnomalies: '--pseudo-anomalies', from: '--from' } as const;
    const given = (Object.keys(flags) as (keyof typeof flags)[]).find((name) => options[name] !== undefined);
    if (given || !head) throw new UsageError(`${given ? flags[given] : '--no-head'} belongs to INP-Former++: add --plus.`);
    return undefined;
  }
  if (from !== undefined) {
    const flags = { steps: '--steps', epochs: '--epochs', warmup: '--warmup' } as const;
    const given = (Object.keys(flags) as (keyof typeof flags)[]).find((name) => options[name] !== undefined);
    if (given) throw new UsageError(`${flags[given]} is for training the detector, which --from takes as it is: use --head-steps or --head-epochs.`);
  }
  return {
    head,
    ...(headSteps !== undefined && { headSteps }),
    ...(headEpochs !== undefined && { headEpochs }),
    ...(pseudoAnomalies !== undefined && { pseudoAnomalies }),
    ...(from !== undefined && { from: await readFileChecked(from) }),
    ...await anomalySources(options, context),
  };
}

/** What the options of ablations say, as `trainInspector` takes it. */
export function detectorSettings({ method, prototypes, decoder, neighbourhood, residual = false, coherence, mining }: Pick<TrainingSettings, 'method' | 'prototypes' | 'decoder' | 'neighbourhood' | 'residual' | 'coherence' | 'mining'>) {
  return { method, numPrototypes: prototypes, decoder, neighbourhood, residual, coherence, mining };
}

/** Options that contradict each other are named as they were typed. */
function checkSizes({ resize, crop = 392, keepAspect, tile, tilesPerImage, from: model }: TrainCommandOptions): void {
  if (keepAspect && tile) throw new UsageError('--keep-aspect and --tile exclude each other: tiles are not distorted anyway.');
  if (tile && resize !== undefined) throw new UsageError('--resize and --tile exclude each other: a tile becomes a --crop; --tile PIXELS says how large it is in the image.');
  if (tilesPerImage !== undefined && !tile) throw new UsageError('--tiles-per-image is of --tile: add that.');
  if (model !== undefined && (keepAspect || tile)) throw new UsageError(`${keepAspect ? '--keep-aspect' : '--tile'} is for training the detector; --from takes it as it is, and images as its model says.`);
  if (resize === undefined || model !== undefined) return;
  const [from, to] = [toSize(resize), toSize(crop)];
  if (to.width > from.width || to.height > from.height) throw new UsageError(`--crop ${sizeInWords(crop)} does not fit into --resize ${sizeInWords(resize)}: give a smaller --crop.`);
}

function framingInWords({ framing, view, resize, crop, encoder }: ModelMetadata): string {
  const { width, height } = toSize(crop);
  const { patchSize } = encoder.architecture;
  const grid = `${sizeInWords(crop)} (${width / patchSize} x ${height / patchSize} patches)`;
  if (framing === 'tiles') return `in tiles of ${sizeInWords(view)} pixels, each at ${grid}`;
  return `undistorted at ${grid}${sizeInWords(resize) === sizeInWords(crop) ? '' : `, the centre of ${sizeInWords(resize)}`}`;
}

/** Finds out now, not after hours of training, that the model can't be written. */
async function prepareOutput(out: string, resume: boolean, context: CommandContext): Promise<void> {
  const checkpointFile = `${out}.checkpoint`;
  await prepareOutputFile(out, 'model file', 'model.safetensors');
  if (resume && !existsSync(checkpointFile)) {
    throw new InputError(`${checkpointFile}: there is no checkpoint to resume from. Leave out --resume to start anew.`, { file: checkpointFile });
  }
  if (!resume && existsSync(checkpointFile)) {
    context.warn(`${checkpointFile} is left from a run that was stopped and will be replaced; to go on from it, stop now and add --resume.`);
  }
}

async function prepareFolder(out: string): Promise<void> {
  if (await stat(out).then((info) => !info.isDirectory(), () => false)) {
    throw new InputError(`${out}: this is a file; with --setting single --out names the folder of the models.`, { file: out });
  }
  await makeFolder(out);
}

function checkpointStore(path: string): CheckpointStore {
  return {
    load: () => readFile(path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT') return undefined;
      throw fileError(path, cause, 'read');
    }),
    save: (bytes) => writeFileAtomic(path, bytes),
  };
}

function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}
