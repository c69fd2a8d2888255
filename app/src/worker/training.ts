/**
 * A training from storage to a stored model. It survives what happens to pages: its state goes to storage every quarter of
 * a minute or so, a lost device or a reload goes on from there, and a full disk costs only that safety, with a warning.
 */
import { AbortedError, InpFormerError, planReport, splitForCalibration, trainInspector, type CheckpointStore, type Engine, type TrainProgress } from '../../../src/browser/index.ts';
import { fewShotMost, fewShotViews, type EngineApi } from '../protocol.ts';
import { storage, StorageFullError, type StoredTraining, type TrainingSettings } from '../storage.ts';
import { device, madeProgress, withDevice } from './device.ts';
import { loadEncoder } from './encoders.ts';
import { tell } from './events.ts';
import { closeInspector } from './inspection.ts';
import { pictureSource } from './pictures.ts';
import { openSpill } from './spill.ts';

const secondsBetweenCheckpoints = 15;
const secondsBetweenPreviews = 1.5;
const secondsBetweenReports = 0.1;
/** Features kept in memory before they go to disk: a tablet has not much more. */
const featureBytes = 512 * 1024 ** 2;
/** What of the peak of one large product a whole training reaches, before this device has shown it. */
const usualEfficiency = 0.35;

let controller: AbortController | undefined;
let gate: { closed: Promise<void>; open(): void } | undefined;

export function pause(paused: boolean): void {
  if (paused && !gate) {
    let open = (): void => undefined;
    const closed = new Promise<void>((resolve) => { open = resolve; });
    gate = { closed, open };
  } else if (!paused) {
    gate?.open();
    gate = undefined;
  }
}

export function cancel(): void {
  controller?.abort();
  pause(false);
}

interface Cost {
  readonly encodeFlops: number;
  readonly stepFlops: number;
}

const costs = new Map<string, Cost>();

async function costOf({ encoder, size, batchSize }: TrainingSettings): Promise<Cost> {
  const key = [encoder, size, batchSize].join();
  const known = costs.get(key);
  if (known) return known;
  const { architecture } = await loadEncoder(encoder);
  const flops = (train: boolean, batch: number): number => planReport({ architecture, crop: size, batchSize: batch, train }).flops;
  const cost = { encodeFlops: flops(false, 1), stepFlops: flops(true, batchSize) };
  costs.set(key, cost);
  return cost;
}

let speed: { adapter: string; secondsPerFlop: number } | undefined;

/** As an earlier training on this device has shown it; else measured now. */
async function secondsPerFlop(engine: Engine): Promise<number> {
  const adapter = engine.adapter.name;
  if (speed?.adapter !== adapter) {
    speed = { adapter, secondsPerFlop: (await storage.speed(adapter)) ?? 1 / ((await engine.measureSpeed()).gflops * 1e9 * usualEfficiency) };
  }
  return speed.secondsPerFlop;
}

export async function estimate({ settings, images }: { settings: TrainingSettings; images: number }): Promise<number> {
  return withDevice(async (engine) => {
    const { encodeFlops, stepFlops } = await costOf(settings);
    const pictures = images <= fewShotMost ? images * fewShotViews : images;
    return await secondsPerFlop(engine) * (pictures * encodeFlops + settings.steps * stepFlops);
  });
}

export async function train(): Promise<ReturnType<EngineApi['train']>> {
  if (controller) throw new InpFormerError('busy', 'A training is running already.');
  controller = new AbortController();
  try {
    return await withTrainingLock(() => runStored(controller!.signal));
  } finally {
    controller = undefined;
    pause(false);
  }
}

/** Two pages must not write one checkpoint. */
function withTrainingLock<T>(body: () => Promise<T>): Promise<T> {
  return navigator.locks.request('training', { ifAvailable: true }, (lock) => {
    if (!lock) throw new InpFormerError('busy', 'Another tab of this page is training: wait until it is done, or cancel it there.');
    return body();
  }) as Promise<T>;
}

async function runStored(signal: AbortSignal): Promise<ReturnType<EngineApi['train']>> {
  tell({ kind: 'training', phase: 'preparing', done: 0, total: 1, imagesPerSecond: 0, secondsLeft: Infinity, firstStep: 0, losses: [] });
  closeInspector();
  const training = await storage.training();
  if (!training) throw new InpFormerError('usage', 'There is no training to go on with.');
  const { settings } = training;
  const parts = new Map((await storage.parts()).map((part) => [part.id, part]));
  const chosen = training.partIds.flatMap((id) => parts.get(id) ?? []);
  if (chosen.length < training.partIds.length) throw new InpFormerError('usage', `${training.partIds.length - chosen.length} of the parts of this training have been removed. Start a new one.`);
  const encoder = await loadEncoder(settings.encoder);
  const sources = (of: typeof chosen) => of.map(pictureSource);
  const split = splitForCalibration(chosen);
  const images = chosen.length <= fewShotMost
    ? { images: sources(chosen), shots: chosen.length }
    : { images: sources(split.train), ...(split.heldOut && { calibrationImages: sources(split.calibration) }) };

  // It outlives a lost device: the losses up to the checkpoint are not told a second time.
  const reporter = new Reporter(training);
  const { result, seconds } = await withDevice(async (engine) => {
    const secondsPerStep = await secondsPerFlop(engine) * (await costOf(settings)).stepFlops;
    const steps = (period: number, most: number): number => Math.max(1, Math.min(most, Math.round(period / secondsPerStep)));
    const checkpoint = checkpointStore(training, reporter);
    const resume = (await checkpoint.load()) !== undefined;
    const result = await trainInspector(engine, {
      encoder, ...images,
      resize: settings.size, crop: settings.size, steps: settings.steps, batchSize: settings.batchSize, seed: settings.seed,
      skipUnreadable: true,
      signal, resume, checkpoint,
      checkpointEverySteps: steps(secondsBetweenCheckpoints, 200),
      gate: () => gate?.closed,
      preview: {
        image: pictureSource(training.watched),
        everySteps: steps(secondsBetweenPreviews, 50),
        onMap: ({ step, map, mapWidth, mapHeight }) => {
          const copy = map as Float32Array<ArrayBuffer>;
          tell({ kind: 'preview', step, map: copy, mapWidth, mapHeight }, [copy.buffer]);
        },
      },
      onProgress: (progress) => reporter.report(progress),
      featureCache: { maxBytes: featureBytes, spill: openSpill },
    });
    return { result, seconds: result.record.seconds };
  });

  const { inspector, model, record } = result;
  const { metadata } = inspector;
  inspector.dispose();
  const ran = record.losses.length;
  if (ran > 5) {
    const { adapter } = await device();
    speed = { adapter: adapter.name, secondsPerFlop: seconds / (ran * (await costOf(settings)).stepFlops) };
    await storage.saveSpeed(adapter.name, speed.secondsPerFlop).catch(() => undefined);
  }
  tell({ kind: 'training', phase: 'saving', done: 0, total: 1, imagesPerSecond: 0, secondsLeft: 0, firstStep: 0, losses: [] });
  await storage.finishTraining({
    id: training.id, name: training.name, created: Date.now(), metadata, file: new Blob([model as Uint8Array<ArrayBuffer>]), threshold: metadata.calibration.threshold,
    thumbnails: chosen.slice(0, 4).map(({ thumbnail }) => thumbnail), fromSamples: training.fromSamples,
  });
  return { modelId: training.id, skipped: record.skipped.map(({ reason }) => reason), outliers: record.outliers.map(({ name }) => name) };
}

/** Gathers the losses of several steps into one message: a fast GPU does hundreds a second. */
class Reporter {
  readonly losses: number[];
  private last: TrainProgress['phase'] | undefined;
  private sentAt = 0;
  private sentLosses = 0;

  constructor({ losses }: StoredTraining) {
    this.losses = [...losses];
  }

  report({ phase, done, total, step, loss, imagesPerSecond, secondsLeft }: TrainProgress): void {
    if (step !== undefined) {
      // After going on from a checkpoint, what came after it comes again.
      this.losses.length = Math.min(this.losses.length, step);
      this.sentLosses = Math.min(this.sentLosses, step);
      this.losses[step] = loss!;
      madeProgress();
    }
    const now = performance.now();
    if (phase === this.last && done < total && now - this.sentAt < secondsBetweenReports * 1000) return;
    tell({ kind: 'training', phase, done, total, imagesPerSecond, secondsLeft, firstStep: this.sentLosses, losses: this.losses.slice(this.sentLosses) });
    this.last = phase;
    this.sentAt = now;
    this.sentLosses = this.losses.length;
  }
}

function checkpointStore(training: StoredTraining, reporter: Reporter): CheckpointStore {
  let warned = false;
  return {
    load: () => storage.checkpoint(),
    save: async (bytes) => {
      const step = reporter.losses.length;
      try {
        await storage.saveCheckpoint({ ...training, step, losses: [...reporter.losses] }, bytes);
        tell({ kind: 'checkpoint', step });
      } catch (error) {
        if (!(error instanceof StorageFullError)) throw error;
        if (!warned) tell({ kind: 'warning', message: `${error.message} The training goes on, but a reload would lose it.` });
        warned = true;
      }
    },
  };
}

export const wasCancelled = (error: unknown): boolean => error instanceof AbortedError;
