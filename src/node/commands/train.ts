/**
 * `inp-former train`: a folder of normal images becomes a model file. What can fail cheaply fails first: options, folder,
 * place to write, encoder, adapter. A run that is stopped leaves `<out>.checkpoint`, from which `--resume` goes on.
 */
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { trainingImages } from '../../data/layout.ts';
import { InputError, UsageError } from '../../errors.ts';
import { splitForCalibration, type CalibrationSplit } from '../../inspect/calibration.ts';
import type { CoherenceKind } from '../../inspect/model-file.ts';
import type { DecoderKind, Method } from '../../model/config.ts';
import { trainInspector, type CheckpointStore, type PlusOptions } from '../../train/train.ts';
import { fileError, readFileChecked, writeFileAtomic } from '../files.ts';
import { listFolder } from '../folders.ts';
import { imageFileSource } from '../images.ts';
import { openSpillFile } from '../spill.ts';
import { byteSize, duration, type CommandContext, type CommonOptions } from './context.ts';
import { anomalySources } from './anomaly-sources.ts';
import { openEncoder } from './encoders.ts';
import { prepareOutputFile } from './output.ts';

export interface TrainCommandOptions extends CommonOptions {
  readonly data: string;
  readonly out: string;
  readonly encoder: string;
  readonly resize?: number;
  readonly crop?: number;
  readonly steps?: number;
  readonly epochs?: number;
  readonly warmup?: number;
  readonly batchSize: number;
  readonly limit?: number;
  readonly seed: number;
  readonly resume?: boolean;
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

export async function train(options: TrainCommandOptions, context: CommandContext): Promise<number> {
  const { data, out, resize, crop, steps, epochs, warmup, batchSize, limit, seed, tune, resume = false, skipUnreadable = false } = options;
  if (options.from === undefined && (crop ?? 392) > (resize ?? 448)) throw new UsageError(`--crop ${crop ?? 392} does not fit into --resize ${resize ?? 448}: give a --crop of at most ${resize ?? 448}.`);
  const plus = await plusOptions(options, context);
  const isMemory = options.method === 'memory';
  if (isMemory && (steps ?? epochs ?? warmup ?? (resume || undefined)) !== undefined) throw new UsageError('--method memory trains nothing: leave out --steps, --epochs, --warmup and --resume.');
  if (isMemory && options.plus) throw new UsageError('--method memory trains nothing: leave out --plus.');
  const checkpointFile = await prepareOutput(out, resume, context);

  const started = performance.now();
  const files = trainingImages(await listFolder(data), data);
  const split = options.shots === undefined ? splitForCalibration(files, { limit }) : fewShotSplit(files, options.shots);
  const sources = (paths: readonly string[]) => paths.map((path) => imageFileSource(join(data, path)));
  context.field('Images', split.rule);

  const encoder = await openEncoder(options.encoder, context);
  const engine = await context.engine(options.adapter);
  const progress = context.progress();
  const store = checkpointStore(checkpointFile);
  try {
    const { inspector, model, record } = await trainInspector(engine, {
      encoder,
      images: sources(split.train),
      // Where none can be held out, calibration happens on the training images, which trainInspector knows by their absence here.
      ...(split.heldOut && { calibrationImages: sources(split.calibration) }),
      batchSize, seed, skipUnreadable, resume,
      ...(resize !== undefined && { resize }),
      ...(crop !== undefined && { crop }),
      ...(plus && { plus }),
      ...detectorSettings(options),
      ...(options.shots !== undefined && { shots: options.shots }),
      ...(options.memoryRows !== undefined && { memoryRows: options.memoryRows }),
      ...(steps !== undefined && { steps }),
      ...(epochs !== undefined && { epochs }),
      ...(warmup !== undefined && { warmupSteps: warmup }),
      ...(tune !== undefined && { tune }),
      signal: context.signal,
      onProgress: progress.onTraining,
      checkpoint: store,
      featureCache: { spill: openSpillFile },
    });
    progress.end();
    const { calibration } = inspector.metadata;
    inspector.dispose();
    await writeFileAtomic(out, model);
    await rm(checkpointFile, { force: true });

    for (const { name, reason } of record.skipped) context.warn(`skipped ${name}: ${reason}`);
    for (const { name, score } of record.outliers) context.warn(`${name} scores ${score.toPrecision(3)}, far above the other normal images: the threshold leaves it aside; look whether it is defective.`);
    if (options.shots !== undefined && !(isMemory && options.shots > 1)) context.warn('the threshold comes from views of the shots alone, which say little of how parts differ: look at the scores of new good parts, and give --threshold.');
    const seconds = (performance.now() - started) / 1000;
    const { training, memoryRows } = inspector.metadata;
    if (isMemory) context.field('Memory', `${memoryRows} tokens of ${training.images} ${training.shots === undefined ? 'images' : 'views'}`);
    if (record.steps > 0) context.field('Trained', `${record.steps} steps in ${duration(record.seconds)}, ${record.imagesPerSecond.toPrecision(3)} images/s, final loss ${record.finalLoss.toFixed(4)}`);
    if (record.head) context.field('Head', `${record.head.steps} steps in ${duration(record.head.seconds)}, ${record.head.imagesPerSecond.toPrecision(3)} images/s, final loss ${record.head.finalLoss.toFixed(4)}`);
    context.field('Phases', Object.entries(progress.seconds).map(([phase, time]) => `${phase} ${duration(time)}`).join(', '));
    context.field('Threshold', `${calibration.threshold.toPrecision(4)} (${calibration.rule})`);
    context.field('Model', `${out} (${byteSize(model.length)})`);
    context.say(`\nNext: inp-former inspect --model ${quoted(out)} IMAGE…`);
    context.result({
      command: 'train',
      model: out,
      bytes: model.length,
      images: { train: training.shots === undefined ? split.train.length : training.images, calibration: split.calibration.length, heldOut: split.heldOut, skipped: record.skipped, outliers: record.outliers },
      method: options.method,
      ...(options.shots !== undefined && { shots: options.shots }),
      ...(isMemory && { memoryRows }),
      steps: record.steps,
      finalLoss: record.finalLoss,
      ...(record.head && { head: { steps: record.head.steps, finalLoss: record.head.finalLoss, imagesPerSecond: record.head.imagesPerSecond, seconds: record.head.seconds } }),
      threshold: calibration.threshold,
      calibration,
      encoder: { name: encoder.name, sha256: encoder.sha256 },
      adapter: { name: engine.adapter.name, isSoftware: engine.adapter.isSoftware },
      imagesPerSecond: record.imagesPerSecond,
      seconds: { ...progress.seconds, training: record.seconds, total: seconds },
    });
    return 0;
  } catch (error) {
    progress.end();
    if (existsSync(checkpointFile)) context.say(`The state of the training is kept in ${checkpointFile}; the same command with --resume goes on from there.`);
    throw error;
  } finally {
    engine.dispose();
  }
}

/** What `--plus` and the flags that go with it ask for; undefined without. */
async function plusOptions(options: TrainCommandOptions, context: CommandContext): Promise<PlusOptions | undefined> {
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

/** The shots are drawn by trainInspector, and nothing else is looked at. */
function fewShotSplit(files: string[], shots: number): Pick<CalibrationSplit<string>, 'train' | 'calibration' | 'heldOut' | 'rule'> {
  return { train: files, calibration: [], heldOut: false, rule: `${shots} of ${files.length}, drawn by the seed; the others are not looked at` };
}

/** What the options of ablations say, as `trainInspector` takes it. */
export function detectorSettings({ method, prototypes, decoder, neighbourhood, residual = false, coherence, mining }: Pick<TrainCommandOptions, 'method' | 'prototypes' | 'decoder' | 'neighbourhood' | 'residual' | 'coherence' | 'mining'>) {
  return { method, numPrototypes: prototypes, decoder, neighbourhood, residual, coherence, mining };
}

/** Finds out now, not after hours of training, that the model can't be written. Returns the checkpoint's path. */
async function prepareOutput(out: string, resume: boolean, context: CommandContext): Promise<string> {
  const checkpointFile = `${out}.checkpoint`;
  await prepareOutputFile(out, 'model file', 'model.safetensors');
  if (resume && !existsSync(checkpointFile)) {
    throw new InputError(`${checkpointFile}: there is no checkpoint to resume from. Leave out --resume to start anew.`, { file: checkpointFile });
  }
  if (!resume && existsSync(checkpointFile)) {
    context.warn(`${checkpointFile} is left from a run that was stopped and will be replaced; to go on from it, stop now and add --resume.`);
  }
  return checkpointFile;
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
