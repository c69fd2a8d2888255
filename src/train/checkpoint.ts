/**
 * Where a training stands: trained tensors, the optimiser's three moments, and the step, as one safetensors. With it
 * goes all that decides the rest of the run (encoder, images, sizes, seed, schedule): resuming with anything else is
 * refused, because the result would be neither the old run nor a new one.
 */
import type { Size } from '../data/preprocess.ts';
import { InputError, UsageError } from '../errors.ts';
import { sizeOf, type Shape } from '../graph/tensor.ts';
import type { Framing } from '../inspect/model-file.ts';
import type { DetectorConfig } from '../model/config.ts';
import { headShapes, trainableShapes } from '../model/parameters.ts';
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
  readonly resize: Size;
  readonly crop: Size;
  readonly framing: Framing;
  readonly tile?: Size;
  readonly seed: number;
  readonly steps: number;
  readonly warmupSteps: number;
  readonly batchSize: number;
  readonly stepsPerEpoch: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly model: object;
  /** What decides the training of a segmentation head. */
  readonly plus?: object;
}

export interface Checkpoint {
  /** Steps done. */
  readonly step: number;
  readonly firstLoss: number | undefined;
  readonly lastLoss: number;
  /** Of what is being trained: the detector, or where that is done, its segmentation head. */
  readonly state: Required<TrainedTensors>;
  /** The trained detector, while its head is trained. */
  readonly detector?: { readonly values: Map<string, Float32Array>; readonly finalLoss: number };
}

const metadataKey = 'inp_former_checkpoint';

/** Which of the trainings, one after the other, a checkpoint was written in. */
export type Stage = 'detector' | 'head';

export function writeCheckpoint({ step, firstLoss, lastLoss, state, detector }: Checkpoint, identity: CheckpointIdentity): Uint8Array {
  const stored = (prefix: string, tensors: ReadonlyMap<string, Float32Array>) =>
    [...tensors].map(([name, data]) => [`${prefix}.${name}`, { dtype: 'F32' as const, shape: [data.length], data }] as const);
  const tensors = [...optimizerState.flatMap((kind) => stored(kind, state[kind])), ...(detector ? stored('detector', detector.values) : [])];
  const stage: Stage = detector ? 'head' : 'detector';
  return writeSafetensors(tensors, { [metadataKey]: JSON.stringify({ version: 1, stage, step, firstLoss, lastLoss, ...(detector && { detectorLoss: detector.finalLoss }), identity }) });
}

interface SavedMetadata {
  readonly version: number;
  readonly stage: Stage;
  readonly step: number;
  readonly firstLoss?: number;
  readonly lastLoss: number;
  readonly detectorLoss?: number;
  readonly identity: CheckpointIdentity;
}

function readMetadata(metadata: Readonly<Record<string, string>>, name: string): SavedMetadata {
  try {
    const saved = JSON.parse(metadata[metadataKey]!) as SavedMetadata;
    const isWhole = saved.version === 1 && ['detector', 'head'].includes(saved.stage) && Number.isInteger(saved.step) && saved.step >= 1 && Number.isFinite(saved.lastLoss)
      && Array.isArray(saved.identity.images) && (saved.stage === 'detector' || Number.isFinite(saved.detectorLoss));
    if (!isWhole) throw new Error('its metadata are incomplete');
    return saved;
  } catch (cause) {
    throw new InputError(`${name}: this is no checkpoint of a training. Remove it, or train without resuming.`, { file: name, cause });
  }
}

/** @throws InputError for a damaged checkpoint */
export function stageOf(bytes: Uint8Array, name = 'checkpoint'): Stage {
  return readMetadata(readSafetensors(bytes, name).metadata, name).stage;
}

/** @throws InputError for a damaged checkpoint, UsageError where it belongs to another training */
export function readCheckpoint(bytes: Uint8Array, identity: CheckpointIdentity, config: DetectorConfig, name = 'checkpoint'): Checkpoint {
  const { tensors, metadata } = readSafetensors(bytes, name);
  const saved = readMetadata(metadata, name);
  for (const key of Object.keys(identity) as (keyof CheckpointIdentity)[]) {
    const [was, is] = [JSON.stringify(saved.identity[key]), JSON.stringify(identity[key])];
    if (was !== is) {
      const shown = key === 'images' ? `${saved.identity.images.length} images, now ${identity.images.length} (other names or order)` : `${was}, now ${is}`;
      throw new UsageError(`The checkpoint belongs to another training: its ${key} was ${shown}. Use the same settings, or train without resuming.`);
    }
  }
  const stored = (prefix: string, shapes: ReadonlyMap<string, Shape>) => new Map([...shapes].map(([tensor, shape]) => {
    const entry = tensors.get(`${prefix}.${tensor}`);
    const data = entry && tensorToFloat32(entry, tensor);
    if (data?.length !== sizeOf(shape) || !data.every(Number.isFinite)) throw new InputError(`${name}: ${prefix}.${tensor} is missing, has another size or is not finite. Remove the checkpoint and train anew.`, { file: name });
    return [tensor, data];
  }));
  const detectorShapes = trainableShapes({ ...config, segmentationHead: false });
  const trained = saved.stage === 'head' ? headShapes(config) : detectorShapes;
  const state = Object.fromEntries(optimizerState.map((kind) => [kind, stored(kind, trained)])) as unknown as Required<TrainedTensors>;
  const { step, firstLoss, lastLoss } = saved;
  return { step, firstLoss, lastLoss, state, ...(saved.stage === 'head' && { detector: { values: stored('detector', detectorShapes), finalLoss: saved.detectorLoss! } }) };
}
