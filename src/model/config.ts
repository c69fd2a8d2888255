/**
 * What fixes a detector's shape: the encoder's architecture, which of its blocks are tapped and how their outputs are
 * grouped, and the sizes of the trained part. Defaults are the reference's (INP-Former, CVPR 2025).
 */
import { UsageError } from '../errors.ts';
import { mostFoldedRows } from '../ops/index.ts';
import type { EncoderArchitecture } from '../weights/encoder.ts';

export interface ImageSize {
  readonly height: number;
  readonly width: number;
}

/**
 * What the decoder's attention asks. `prototypes`: the image's own normal prototypes, as in the paper. The other two are for
 * comparison and have no prototypes: `self-attention` softmax attention to all tokens of the image, `neighbour-masked` the
 * same without the tokens around the asking one, as UniAD does it against copying.
 */
export type DecoderKind = 'prototypes' | 'self-attention' | 'neighbour-masked';

/** `reconstruction`: INP-Former. `memory`: distances to the stored features of normal images, without training. */
export type Method = 'reconstruction' | 'memory';

export interface DetectorConfig {
  readonly architecture: EncoderArchitecture;
  /** 0-based encoder blocks whose raw outputs are the features; ascending. Later blocks are never run. */
  readonly taps: readonly number[];
  /** Positions within `taps`; each group's mean is one target feature map, en_g. */
  readonly encoderGroups: readonly (readonly number[])[];
  /** Positions within the REVERSED list of decoder outputs; each group's mean is one reconstruction, de_g. */
  readonly decoderGroups: readonly (readonly number[])[];
  readonly method: Method;
  /** `memory`: normal tokens that are kept. */
  readonly memoryRows: number;
  readonly decoder: DecoderKind;
  /** Keeps the residual around the decoder's attention, which INP-Former removes. */
  readonly residual: boolean;
  /** `neighbour-masked`: side of the masked square, tokens, odd. */
  readonly neighbourhood: number;
  readonly numPrototypes: number;
  /** Blocks of the INP extractor (called `aggregation` in checkpoints). */
  readonly extractorDepth: number;
  readonly decoderDepth: number;
  /** Hidden channels / width in the trained MLPs. */
  readonly mlpRatio: number;
  /** Pixels of the image that the encoder sees; multiples of the patch size. */
  readonly crop: ImageSize;
  /** What the reconstruction's anomaly map is made of: 1 - cos, or the mean of that and the squared error (INP-Former++). */
  readonly distance: ReconstructionDistance;
  /** Whether there is INP-Former++'s segmentation head, whose output is half of the anomaly map. */
  readonly segmentationHead: boolean;
}

export type ReconstructionDistance = 'cosine' | 'cosine+l2';

/** LayerNorm epsilon of DINOv2's blocks, and of INP-Former's own. */
export const encoderEpsilon = 1e-6;
export const headEpsilon = 1e-8;

export interface DetectorOptions {
  readonly architecture: EncoderArchitecture;
  readonly crop: number | ImageSize;
  readonly taps?: readonly number[];
  readonly encoderGroups?: readonly (readonly number[])[];
  readonly decoderGroups?: readonly (readonly number[])[];
  readonly numPrototypes?: number;
  readonly extractorDepth?: number;
  readonly decoderDepth?: number;
  readonly distance?: ReconstructionDistance;
  readonly segmentationHead?: boolean;
  /** Default `reconstruction`. */
  readonly method?: Method;
  readonly memoryRows?: number;
  /** Default `prototypes`. */
  readonly decoder?: DecoderKind;
  /** Default false. */
  readonly residual?: boolean;
  /** Default 7, as in UniAD. */
  readonly neighbourhood?: number;
}

/** Fills in the reference's defaults and checks what was given. @throws UsageError */
export function detectorConfig(options: DetectorOptions): DetectorConfig {
  const { architecture } = options;
  const taps = options.taps ?? defaultTaps(architecture);
  const decoderDepth = options.decoderDepth ?? 8;
  const config: DetectorConfig = {
    architecture, taps, decoderDepth,
    encoderGroups: options.encoderGroups ?? halves(taps.length),
    decoderGroups: options.decoderGroups ?? options.encoderGroups ?? halves(decoderDepth),
    method: options.method ?? 'reconstruction',
    memoryRows: options.memoryRows ?? 0,
    decoder: options.decoder ?? 'prototypes',
    residual: options.residual ?? false,
    neighbourhood: options.neighbourhood ?? 7,
    numPrototypes: options.numPrototypes ?? 6,
    extractorDepth: options.extractorDepth ?? 1,
    mlpRatio: 4,
    distance: options.distance ?? 'cosine',
    segmentationHead: options.segmentationHead ?? false,
    crop: typeof options.crop === 'number' ? { height: options.crop, width: options.crop } : options.crop,
  };
  check(config);
  return config;
}

/** Blocks 2..9 of 12, [4, 6, .., 18] of 24, all of an encoder with eight or fewer. */
export function defaultTaps({ depth }: EncoderArchitecture): number[] {
  if (depth >= 19) return [4, 6, 8, 10, 12, 14, 16, 18];
  if (depth >= 10) return [2, 3, 4, 5, 6, 7, 8, 9];
  return Array.from({ length: depth }, (_, i) => i);
}

function halves(count: number): number[][] {
  const all = Array.from({ length: count }, (_, i) => i);
  const half = Math.ceil(count / 2);
  return count < 2 ? [all] : [all.slice(0, half), all.slice(half)];
}

function check(config: DetectorConfig): void {
  const { architecture, taps, encoderGroups, decoderGroups, crop } = config;
  const { patchSize, width, numHeads } = architecture;
  for (const side of [crop.height, crop.width]) {
    if (!Number.isInteger(side) || side < patchSize || side % patchSize !== 0) {
      throw new UsageError(`The crop is ${crop.height} x ${crop.width} pixels: both sides must be multiples of the encoder's patch size, ${patchSize} (e.g. ${Math.max(1, Math.round(side / patchSize)) * patchSize}).`);
    }
  }
  if (width % numHeads !== 0) throw new UsageError(`${width} channels can't be split into ${numHeads} heads.`);
  if (taps.length === 0 || taps.some((t, i) => !Number.isInteger(t) || t < 0 || t >= architecture.depth || (i > 0 && t <= taps[i - 1]!))) {
    throw new UsageError(`Taps must be ascending block numbers from 0 to ${architecture.depth - 1}, got [${taps.join(', ')}].`);
  }
  const checkGroups = (name: string, groups: readonly (readonly number[])[], count: number) => {
    if (groups.length === 0 || groups.some((g) => g.length === 0 || g.some((i) => !Number.isInteger(i) || i < 0 || i >= count))) {
      throw new UsageError(`${name} must hold positions from 0 to ${count - 1}, got ${JSON.stringify(groups)}.`);
    }
  };
  checkGroups('Encoder groups', encoderGroups, taps.length);
  checkGroups('Decoder groups', decoderGroups, config.decoderDepth);
  if (encoderGroups.length !== decoderGroups.length) {
    throw new UsageError(`There are ${encoderGroups.length} encoder groups and ${decoderGroups.length} decoder groups: each needs its partner.`);
  }
  for (const [name, value] of Object.entries({ numPrototypes: config.numPrototypes, extractorDepth: config.extractorDepth, decoderDepth: config.decoderDepth })) {
    if (!Number.isInteger(value) || value < 1) throw new UsageError(`${name} must be a positive integer, got ${value}.`);
  }
  if (config.distance !== 'cosine' && config.distance !== 'cosine+l2') throw new UsageError(`The distance must be 'cosine' or 'cosine+l2', got ${String(config.distance)}.`);
  const { method, memoryRows, decoder, neighbourhood } = config;
  if (method === 'memory' ? !(Number.isInteger(memoryRows) && memoryRows > 0) : method !== 'reconstruction') {
    throw new UsageError(`The method must be reconstruction, or memory with a positive number of rows, got ${method}, ${memoryRows}.`);
  }
  const { rows, columns } = tokenGrid(config);
  if (decoder === 'neighbour-masked') {
    if (!(Number.isInteger(neighbourhood) && neighbourhood % 2 === 1 && neighbourhood < Math.max(rows, columns))) {
      throw new UsageError(`neighbourhood must be an odd number of tokens below ${Math.max(rows, columns)}, their grid's side, got ${neighbourhood}.`);
    }
  } else if (decoder !== 'prototypes' && decoder !== 'self-attention') {
    throw new UsageError(`decoder must be prototypes, self-attention or neighbour-masked, got ${String(decoder)}.`);
  }
  const most = Math.floor(mostFoldedRows / config.architecture.numHeads);
  if (config.numPrototypes > most) throw new UsageError(`numPrototypes must be at most ${most} with ${config.architecture.numHeads} heads, got ${config.numPrototypes}.`);
}

/** What of a config a model file and a checkpoint must remember, besides encoder and crop. */
export const rememberedOptions = [
  'taps', 'encoderGroups', 'decoderGroups', 'numPrototypes', 'extractorDepth', 'decoderDepth', 'method', 'memoryRows', 'decoder', 'residual', 'neighbourhood', 'distance', 'segmentationHead',
] as const;
export type RememberedOptions = Pick<DetectorConfig, (typeof rememberedOptions)[number]>;

export function remembered(config: DetectorConfig): RememberedOptions {
  return Object.fromEntries(rememberedOptions.map((name) => [name, config[name]])) as unknown as RememberedOptions;
}

/** Whether the detector has prototypes: a reconstruction from them. */
export function hasPrototypes({ method, decoder }: Pick<DetectorConfig, 'method' | 'decoder'>): boolean {
  return method === 'reconstruction' && decoder === 'prototypes';
}

/** Rows and columns of tokens. */
export function tokenGrid({ crop, architecture }: DetectorConfig): { rows: number; columns: number; count: number } {
  const rows = crop.height / architecture.patchSize;
  const columns = crop.width / architecture.patchSize;
  return { rows, columns, count: rows * columns };
}

/**
 * Whether the mean over all taps is the groups' mean weighted by their sizes: true where each tap is in just one
 * group. Then the groups alone need to be kept per image; else the fused feature is kept as well.
 */
export function groupsPartitionTaps({ taps, encoderGroups }: DetectorConfig): boolean {
  const all = encoderGroups.flat().sort((a, b) => a - b);
  return all.length === taps.length && all.every((t, i) => t === i);
}

/** Whether a detector needs what is loaded for INP-Former++ alone. */
export function isPlus({ distance, segmentationHead }: Pick<DetectorConfig, 'distance' | 'segmentationHead'>): boolean {
  return segmentationHead || distance !== 'cosine';
}
