/**
 * Optimiser steps in a row, whatever it is that they train: a few steps are in flight while the oldest loss is waited for,
 * a loss that is not finite or rises ends the training, and checkpoints are written on the way, when the training is
 * stopped, and at its end.
 */
import type { Engine } from '../engine.ts';
import { AbortedError, TrainingDivergedError } from '../errors.ts';
import type { Plan } from '../graph/plan.ts';
import type { CheckpointStore } from './checkpoint.ts';
import { learningRateAt } from './schedule.ts';
import type { TrainedTensors } from './step.ts';
import type { TrainOptions, TrainProgress } from './train.ts';

export interface LoopOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: TrainProgress) => void;
  readonly checkpoint?: CheckpointStore;
  /** Default 100. */
  readonly checkpointEverySteps?: number;
  readonly gate?: TrainOptions['gate'];
}

/** Where a loop stands. */
export interface LoopPosition {
  /** Steps done. */
  readonly step: number;
  readonly firstLoss: number | undefined;
  readonly lastLoss: number;
}

export interface TrainingLoop<Batch> {
  readonly phase: 'training' | 'training head';
  readonly steps: number;
  readonly warmupSteps: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly start: LoopPosition;
  /** What step `at` is trained on. */
  batch(at: number): Promise<Batch>;
  /** Queues a step. @param t the optimiser's step, from 1 */
  run(batch: Batch, t: number, learningRate: number): Promise<{ loss: number; norm: number }>;
  readState(): Promise<Required<TrainedTensors>>;
  /** Called before each step, and after the last; may queue work of its own. */
  observe?(stepsDone: number, isLast: boolean): Promise<void> | undefined;
  /** The bytes of a checkpoint. */
  write(position: LoopPosition, state: Required<TrainedTensors>): Uint8Array;
}

export interface Trained {
  readonly values: Map<string, Float32Array>;
  readonly finalLoss: number;
  /** Of each step that this call ran. */
  readonly losses: readonly number[];
  readonly seconds: number;
  readonly imagesPerSecond: number;
}

/** Steps in flight before the oldest loss is waited for. */
const stepsAhead = 3;
/** Steps over which a loss is averaged before it is called diverging. */
const divergenceWindow = 20;

/** @throws AbortedError after the checkpoint is saved; TrainingDivergedError, with the last good checkpoint kept */
export async function runLoop<Batch>(options: LoopOptions, loop: TrainingLoop<Batch>): Promise<Trained> {
  const { phase, steps, start } = loop;
  const losses: number[] = [];
  let { firstLoss, lastLoss: finalLoss } = start;
  const checkpointAt = async (at: number): Promise<Uint8Array> => {
    const state = await loop.readState();
    for (const [name, data] of state.values) if (!data.every(Number.isFinite)) throw diverged(at - 1, finalLoss, `${name} is no longer finite`);
    return loop.write({ step: at, firstLoss, lastLoss: finalLoss }, state);
  };
  const save = async (at: number): Promise<void> => {
    if (options.checkpoint && at > 0) await options.checkpoint.save(await checkpointAt(at));
  };
  // Whether a state is good shows in the loss that it gives, so it replaces the last good checkpoint only after that.
  let unproven: { step: number; bytes: Uint8Array } | undefined;
  const pace = new Pace();
  const pending: { step: number; learningRate: number; result: ReturnType<typeof loop.run> }[] = [];
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
    options.onProgress?.({ phase, done: at + 1, total: steps, step: at, loss, learningRate: rate, ...pace.at(at + 1 - start.step, steps - start.step, loop.batchSize) });
  };
  const settleAll = async (): Promise<void> => { while (pending.length > 0) await settleOne(); };

  try {
    for (let at = start.step; at < steps; at++) {
      const closed = options.gate?.();
      if (closed) {
        await settleAll();
        await save(at);
        await pace.rest(closed);
      }
      if (options.signal?.aborted) {
        await settleAll();
        await save(at);
        const what = phase === 'training' ? 'Training' : 'The training of the segmentation head';
        throw new AbortedError(`${what} was stopped after step ${at} of ${steps}${options.checkpoint ? '; the checkpoint is kept' : ''}.`);
      }
      if (options.checkpoint && at > start.step && at % (options.checkpointEverySteps ?? 100) === 0) {
        await settleAll();
        unproven = { step: at, bytes: await checkpointAt(at) };
      }
      void loop.observe?.(at, false);
      const batch = await loop.batch(at);
      const rate = learningRateAt(at, { base: loop.learningRate, final: loop.finalLearningRate, warmupSteps: loop.warmupSteps, totalSteps: steps });
      const result = loop.run(batch, at + 1, rate);
      result.catch(() => undefined); // reported when it is settled
      pending.push({ step: at, learningRate: rate, result });
      if (pending.length >= stepsAhead) await settleOne();
    }
    await settleAll();
    await loop.observe?.(steps, true);
  } catch (error) {
    await Promise.allSettled(pending.map((p) => p.result));
    throw error;
  }
  const { seconds } = pace;
  const { values } = await loop.readState();
  for (const [name, data] of values) if (!data.every(Number.isFinite)) throw diverged(steps - 1, finalLoss, `${name} is no longer finite`);
  // So that nothing is lost if what comes after training fails.
  await save(steps);
  return { values, finalLoss, losses, seconds, imagesPerSecond: (losses.length * loop.batchSize) / Math.max(seconds, 1e-9) };
}

function diverged(step: number, loss: number, what: string): TrainingDivergedError {
  return new TrainingDivergedError(step, loss, `Training diverged at step ${step}: ${what}. The last good checkpoint is kept. Look for damaged images, or lower the learning rate.`);
}

/** Speed and time left, over what was done since the start. */
export class Pace {
  private started = performance.now();

  get seconds(): number {
    return (performance.now() - this.started) / 1000;
  }

  /** Waits, and does not count the time. */
  async rest(until: Promise<void> | undefined): Promise<void> {
    if (!until) return;
    const from = performance.now();
    await until;
    this.started += performance.now() - from;
  }

  at(done: number, total: number, imagesEach = 1): { imagesPerSecond: number; secondsLeft: number } {
    const { seconds } = this;
    return { imagesPerSecond: (done * imagesEach) / Math.max(seconds, 1e-9), secondsLeft: done > 0 ? (seconds / done) * (total - done) : Infinity };
  }
}

export function throwIfAborted(signal: AbortSignal | undefined, when: string): void {
  if (signal?.aborted) throw new AbortedError(`Training was stopped ${when}.`);
}

/** Measures which kernels are fastest for a plan, where that is wanted. */
export async function tuneFor(engine: Engine, { tune = !engine.adapter.isSoftware, signal }: TrainOptions, plan: () => Plan): Promise<void> {
  if (tune) await engine.tune(plan(), signal && { signal });
}
