/**
 * The model file: one safetensors with the trained tensors under the reference's names, and in its metadata, as JSON
 * under `inp_former`, everything that inspection needs besides the encoder: which encoder (its hash), sizes, groups,
 * calibration, and how it was trained. It holds no time or place, so the same training gives the same bytes.
 */
import { toSize, type Size } from '../data/preprocess.ts';
import { EncoderMismatchError, InputError, UsageError } from '../errors.ts';
import { sizeOf } from '../graph/tensor.ts';
import { detectorConfig, type DetectorConfig, type ImageSize, type RememberedOptions } from '../model/config.ts';
import { trainableShapes } from '../model/parameters.ts';
import type { EncoderArchitecture, EncoderWeights } from '../weights/encoder.ts';
import { readSafetensors, tensorToFloat32, writeSafetensors } from '../weights/safetensors.ts';
import type { Calibration } from './calibration.ts';

export interface TrainingRecord {
  readonly images: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly warmupSteps: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly seed: number;
  readonly finalLoss: number;
  /** How the segmentation head was trained, after all else. */
  readonly head?: HeadTrainingRecord;
  /** Normal images of each category, where the training was a few-shot one. */
  readonly shots?: number;
  /** Where they were not the reference's: 'min' and soft mining. */
  readonly coherence?: CoherenceKind;
  readonly mining?: boolean;
}

export interface HeadTrainingRecord {
  readonly steps: number;
  readonly batchSize: number;
  readonly warmupSteps: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly seed: number;
  /** How many images were made for it once, or that each was made anew. */
  readonly pseudoAnomalies: number | 'fresh';
  /** Texture images and real defects that they were made of; without textures, of procedural ones and the images themselves. */
  readonly textures: number;
  readonly defects: number;
  readonly finalLoss: number;
}

/** The coherence loss: distance to the nearest prototype, to the soft mixture of all (INP-Former++), or none. */
export type CoherenceKind = 'min' | 'soft' | 'none';

/** What one of a unified model's categories needs besides the joint calibration. */
export interface CategoryRecord {
  readonly name: string;
  /** Images of it that were trained on. */
  readonly images: number;
  readonly calibration: Calibration;
}

/**
 * How an image becomes what the encoder sees: stretched to the model's shape, as the reference does it; undistorted; or cut
 * into tiles of the size of the view.
 */
export type Framing = 'stretch' | 'keep-aspect' | 'tiles';
export const framings: readonly Framing[] = ['stretch', 'keep-aspect', 'tiles'];

export interface ModelMetadata extends RememberedOptions {
  readonly version: 1;
  readonly encoder: { readonly name: string; readonly sha256: string; readonly numHeads: number; readonly architecture: EncoderArchitecture };
  /** What images are resized to, and the centre crop that the encoder sees, pixels. */
  readonly resize: Size;
  readonly crop: Size;
  /** Of a view's anomaly map. */
  readonly mapSize: Size;
  readonly framing: Framing;
  /** Pixels of a source image that `resize` covered in training (of the image of median area): how large a tile is, with the border that the crop leaves. */
  readonly view: Size;
  /** From the normal images of all categories together. */
  readonly calibration: Calibration;
  /** Of a model that was trained on several: each with the calibration of its own images. */
  readonly categories?: readonly CategoryRecord[];
  /**
   * The same of the zero-shot maps of the same images. Their categories are those that the model was trained on, so its
   * threshold says nothing of others: only the scale of heat maps comes from it.
   */
  readonly zeroShotCalibration?: Calibration;
  /** Where the user has moved it: the score above which an image is defective, in place of the calibrated one. */
  readonly threshold?: number;
  readonly training: TrainingRecord;
}

const metadataKey = 'inp_former';

export function configOf(metadata: ModelMetadata): DetectorConfig {
  return detectorConfig({ ...metadata, architecture: metadata.encoder.architecture });
}

export function writeModel(values: ReadonlyMap<string, Float32Array>, metadata: ModelMetadata): Uint8Array {
  const shapes = trainableShapes(configOf(metadata));
  return writeSafetensors(
    [...shapes].map(([name, shape]) => [name, { dtype: 'F32', shape: [...shape], data: values.get(name)! }] as const),
    { [metadataKey]: JSON.stringify(metadata) },
  );
}

/** The model file with another threshold, everything else as it was; the calibrated one where it is undefined. @throws InputError */
export function withThreshold(bytes: Uint8Array, threshold: number | undefined, name?: string): Uint8Array {
  const metadata = readModelMetadata(bytes, name);
  // JSON leaves out what is undefined.
  const changed: ModelMetadata = { ...metadata, threshold: threshold === metadata.calibration.threshold ? undefined : threshold };
  return writeSafetensors([...readSafetensors(bytes, name).tensors].map(([tensor, { dtype, shape, data }]) => [tensor, { dtype, shape, data }] as const), { [metadataKey]: JSON.stringify(changed) });
}

/** @throws InputError for a damaged file or one that is no model of this package */
export function readModelMetadata(bytes: Uint8Array, name = 'model'): ModelMetadata {
  const { metadata } = readSafetensors(bytes, name);
  const text = metadata[metadataKey];
  if (text === undefined) {
    throw new InputError(`${name}: a safetensors file, but not a model of inp-former: its metadata lack "${metadataKey}". Give a file that \`inp-former train\` wrote.`, { file: name });
  }
  let parsed: ModelMetadata;
  try {
    parsed = JSON.parse(text) as ModelMetadata;
    if (parsed?.version === 1) checkWhole(parsed);
  } catch (cause) {
    throw new InputError(`${name}: the model's metadata are damaged (${cause instanceof Error ? cause.message : String(cause)}). Train the model again, or take a copy.`, { file: name, cause });
  }
  if (parsed?.version !== 1) throw new InputError(`${name}: the model has version ${String(parsed?.version)}, this program reads 1. Update inp-former.`, { file: name });
  return parsed;
}

/** Throws whatever damaged metadata make it throw. */
function checkWhole(metadata: ModelMetadata): void {
  configOf(metadata);
  const { taps, encoderGroups, decoderGroups, encoder, framing, threshold = 0, categories = [] } = metadata;
  const [resize, crop] = [metadata.resize, metadata.crop, metadata.mapSize, metadata.view].map((size) => toSize(size)) as [ImageSize, ImageSize];
  const isWhole = crop.width <= resize.width && crop.height <= resize.height && framings.includes(framing) && Number.isFinite(threshold)
    && [metadata, ...categories].every(({ calibration: c }) => [c.threshold, c.pixelThreshold, c.scaleLow, c.scaleHigh].every(Number.isFinite))
    && [taps, encoderGroups, decoderGroups].every(Array.isArray) && encoder.sha256;
  if (!isWhole) throw new Error('incomplete');
}

/** The calibration of a category, or the joint one. @throws UsageError for a category that the model does not know */
export function calibrationFor(metadata: ModelMetadata, category: string | undefined): Calibration {
  const { categories = [] } = metadata;
  const found = category === undefined ? metadata : categories.find(({ name }) => name === category);
  if (!found) throw new UsageError(`The model knows ${categories.map(({ name }) => name).join(', ') || 'no categories'}, not ${category}.`);
  return found.calibration;
}

/** @throws EncoderMismatchError for another encoder than the model was trained on */
export function checkEncoder(metadata: ModelMetadata, encoder: EncoderWeights, name = 'model'): void {
  if (metadata.encoder.sha256 !== encoder.sha256) {
    throw new EncoderMismatchError(
      `${name} was trained on the encoder ${metadata.encoder.name} (sha256 ${metadata.encoder.sha256.slice(0, 12)}…), but ${encoder.name} (sha256 ${encoder.sha256.slice(0, 12)}…) was given: with another encoder its scores mean nothing. Give the same encoder file.`,
    );
  }
}

/** Metadata and trained tensors, checked against each other and, where it is at hand already, against the encoder. */
export function readModel(bytes: Uint8Array, encoder: EncoderWeights | undefined, name = 'model'): { metadata: ModelMetadata; config: DetectorConfig; values: Map<string, Float32Array> } {
  const metadata = readModelMetadata(bytes, name);
  if (encoder) checkEncoder(metadata, encoder, name);
  const config = configOf(metadata);
  const { tensors } = readSafetensors(bytes, name);
  const values = new Map<string, Float32Array>();
  for (const [tensor, shape] of trainableShapes(config)) {
    const entry = tensors.get(tensor);
    if (!entry) throw new InputError(`${name}: the tensor ${tensor} is missing. Train the model again, or take a copy.`, { file: name });
    const data = tensorToFloat32(entry, tensor);
    if (data.length !== sizeOf(shape)) throw new InputError(`${name}: ${tensor} has shape [${entry.shape.join(', ')}], expected [${shape.join(', ')}].`, { file: name });
    if (!data.every(Number.isFinite)) throw new InputError(`${name}: ${tensor} holds values that are not finite numbers. Train the model again, or take a copy.`, { file: name });
    values.set(tensor, data);
  }
  return { metadata, config, values };
}
