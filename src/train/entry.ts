/** Training is loaded when it begins: a page that only inspects never fetches it. */
import type { Engine } from '../engine.ts';
import type { TrainOptions, TrainResult } from './train.ts';

/**
 * Trains on normal images; see {@link TrainOptions}.
 * @throws UsageError, InputError (unreadable images), AllocationError, DeviceLostError;
 *   AbortedError when the signal fires, after the checkpoint is saved; TrainingDivergedError, with the last good checkpoint kept
 */
export async function trainInspector(engine: Engine, options: TrainOptions): Promise<TrainResult> {
  return (await import('./train.ts')).trainInspector(engine, options);
}
