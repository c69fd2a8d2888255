/**
 * Where a training stands: trained tensors, the optimiser's three moments, and the step, as one safetensors. With it
 * goes all that decides the rest of the run (encoder, images, sizes, seed, schedule): resuming with anything else is
 * refused, because the result would be neither the old run nor a new one.
 */
import { InputError, UsageError } from '../errors.ts';
import { sizeOf } from '../graph/tensor.ts';
import type { DetectorConfig } from '../model/config.ts';
import { trainableShapes } from '../model/parameters.ts';
import { optimizerState } from '../model/graphs.ts';
import { readSafetensors, tensorToFloat32, writeSafetensors } from '../weights/safetensors.ts';
import type { TrainedTensors } from './step.ts';

/**
 * Where checkpoints are kept: a file, the browser's storage. The one who gave it deletes the checkpoint, once the trained
 * model is safe.
 */
export interface CheckpointStore {
  load(): Promise<Uint8Array | undefined>;
  save(bytes: Uint8Array): Promise<void>;
}

/** What must be the same when training goes on. */
export interface CheckpointIdentity {
  readonly encoder: string;
  /** Names of the training images, in order. */
  readonly images: readonly string[];
  readonly resize: number;
  readonly crop: number;
  readonly seed: number;
  readonly steps: number;
  readonly warmupSteps: number;
  readonly batchSize: number;
  readonly stepsPerEpoch: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly model: object;
}

export interface Checkpoint {
  /** Steps done. */
  readonly step: number;
  readonly firstLoss: number | undefined;
  readonly lastLoss: number;
  readonly state: Required<TrainedTensors>;
}

const metadataKey = 'inp_former_checkpoint';

export function writeCheckpoint({ step, firstLoss, lastLoss, state }: Checkpoint, identity: CheckpointIdentity): Uint8Array {
  const tensors = optimizerState.flatMap((kind) => [...state[kind]].map(([name, data]) =>
    [`${kind}.${name}`, { dtype: 'F32' as const, shape: [data.length], data }] as const));
  return writeSafetensors(tensors, { [metadataKey]: JSON.stringify({ version: 1, step, firstLoss, lastLoss, identity }) });
}

/** @throws InputError for a damaged checkpoint, UsageError where it belongs to another training */
export function readCheckpoint(bytes: Uint8Array, identity: CheckpointIdentity, config: DetectorConfig, name = 'checkpoint'): Checkpoint {
  const { tensors, metadata } = readSafetensors(bytes, name);
  let saved: { version: number; step: number; firstLoss?: number; lastLoss: number; identity: CheckpointIdentity };
  try {
    saved = JSON.parse(metadata[metadataKey]!) as typeof saved;
    const isWhole = saved.version === 1 && Number.isInteger(saved.step) && saved.step >= 1 && Number.isFinite(saved.lastLoss) && Array.isArray(saved.identity.images);
    if (!isWhole) throw new Error('its metadata are incomplete');
  } catch (cause) {
    throw new InputError(`${name}: this is no checkpoint of a training. Remove it, or train without resuming.`, { file: name, cause });
  }
  for (const key of Object.keys(identity) as (keyof CheckpointIdentity)[]) {
    const [was, is] = [JSON.stringify(saved.identity[key]), JSON.stringify(identity[key])];
    if (was !== is) {
      const shown = key === 'images' ? `${saved.identity.images.length} images, now ${identity.images.length} (other names or order)` : `${was}, now ${is}`;
      throw new UsageError(`The checkpoint belongs to another training: its ${key} was ${shown}. Use the same settings, or train without resuming.`);
    }
  }
  const state = Object.fromEntries(optimizerState.map((kind) => [kind, new Map([...trainableShapes(config)].map(([tensor, shape]) => {
    const entry = tensors.get(`${kind}.${tensor}`);
    const data = entry && tensorToFloat32(entry, tensor);
    if (data?.length !== sizeOf(shape) || !data.every(Number.isFinite)) throw new InputError(`${name}: ${kind}.${tensor} is missing, has another size or is not finite. Remove the checkpoint and train anew.`, { file: name });
    return [tensor, data];
  }))])) as unknown as Required<TrainedTensors>;
  return { step: saved.step, firstLoss: saved.firstLoss, lastLoss: saved.lastLoss, state };
}
