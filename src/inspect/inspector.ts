/**
 * A trained detector at work: image in, score, verdict, map, mask and regions out. The whole way from pixels to score
 * is on the GPU; a single image is one submit. Images in a batch get the very numbers that they get alone.
 */
import { checkRasterImage, type RasterImage } from '../data/image.ts';
import { InputError, UsageError } from '../errors.ts';
import type { Engine } from '../engine.ts';
import type { DeviceMemory } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile } from '../graph/plan.ts';
import type { Tensor, TensorData } from '../graph/tensor.ts';
import { toSize, type Size } from '../data/preprocess.ts';
import type { DetectorConfig } from '../model/config.ts';
import { inspectionGraph, zeroShotScoring, type InspectionGraph } from '../model/graphs.ts';
import { ImageStage, imagesLeaf } from '../model/image-stage.ts';
import { checkPrecision, uploadEncoder, uploadTrainables } from '../model/memory.ts';
import type { Precision } from '../model/parameters.ts';
import { scoringOf } from '../model/score-function.ts';
import type { Scoring } from '../model/scoring.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import type { Calibration } from './calibration.ts';
import { inspectViews, type FramedInspection, type FramedModel } from './framed.ts';
import type { InspectedGraph } from './group-maps.ts';
import type { HeatScale } from './heatmap.ts';
import { calibrationFor, checkEncoder, readModel, readModelMetadata, writeModel, type ModelMetadata } from './model-file.ts';
import { localLevels, regionLevel } from './pixel-level.ts';
import type { PrototypeView, TokenOutputs } from './prototype-view.ts';
import { findRegions, type Box, type DefectRegion, type MapPlacement } from './regions.ts';
import type { TileOptions } from './tiles.ts';

export interface Inspection {
  /** Mean of the highest 1 % of the map; of a tiled map, of as many pixels as 1 % of one tile has. */
  readonly score: number;
  /** NaN where there is none: in zero-shot inspection, until one is set. */
  readonly threshold: number;
  /** 'defective' where the score is above the threshold; 'unjudged' where there is none. */
  readonly verdict: 'good' | 'defective' | 'unjudged';
  /** Anomaly map over the crop (or, from tiles, over the whole image), row-major: 0 is normal, up to 2. */
  readonly map: Float32Array;
  readonly mapWidth: number;
  readonly mapHeight: number;
  /** Where the map lies in the image. */
  readonly placement: MapPlacement;
  /** What heat maps of this model are coloured on: fixed by its calibration. `overlay(image, map, inspection)` draws one. */
  readonly scale: HeatScale;
  /** 1 where the map is above the pixel threshold and above half of its peak (see `regionLevel`), specks left out. */
  readonly mask: Uint8Array;
  /** Connected regions of the mask, hottest first, in map and in source pixels. */
  readonly regions: readonly DefectRegion[];
  /** Where it was asked for, and not of tiles, which have their own. */
  readonly prototypes?: PrototypeView;
  /**
   * Where they were asked for: the map of each group of encoder blocks, earlier blocks first, each like `map`. Of INP-Former and of a
   * memory `map` is their mean; to INP-Former++'s and a zero-shot one they are only one part, the reconstruction's cosines.
   */
  readonly groupMaps?: readonly Float32Array[];
  /** The tiles, row by row, where the image was inspected in tiles. */
  readonly tiles?: readonly InspectedTile[];
}

export interface InspectedTile {
  /** In the image's pixels; reaches beyond where the image is smaller than a tile. */
  readonly source: Box;
  /** Mean of the highest 1 % of the tile's own map. */
  readonly score: number;
  readonly prototypes?: PrototypeView;
}

export interface InspectOptions {
  /**
   * Inspects the image in overlapping tiles of the size that the model saw in training, and blends their maps: for images
   * larger than those that it was trained on. Default: whether it was trained on tiles.
   */
  readonly tile?: boolean | TileOptions;
  /** Adds the {@link PrototypeView}, from the same submit; the plan for it is compiled the first time. */
  readonly prototypes?: boolean;
  /** Adds {@link Inspection.groupMaps}, likewise; models without prototypes have them too. */
  readonly groups?: boolean;
}

/** What an inspection says beside map and score. */
export type InspectionDetails = Pick<InspectOptions, 'prototypes' | 'groups'>;

export interface InspectorOptions {
  /** Images a run; more than one pays on a GPU. Default 1. */
  readonly batchSize?: number;
  /** What errors call the model. */
  readonly name?: string;
  /**
   * Weights in f16 take half the memory and its bandwidth; everything is computed in f32. Scores then differ by about
   * 1e-5 of their size. Default f32. Needs an adapter with `shader-f16`.
   */
  readonly precision?: Precision;
  /**
   * `zero-shot` compares each image with its own prototypes alone, for things that the model was not trained on. There is no
   * threshold until one is set, hence no verdict and no regions.
   */
  readonly mode?: InspectionMode;
}

export type InspectionMode = 'trained' | 'zero-shot';

export class Inspector {
  readonly metadata: ModelMetadata;
  readonly mode: InspectionMode;
  private readonly values: ReadonlyMap<string, Float32Array>;
  private readonly network: InspectionNetwork;
  private currentThreshold = NaN;
  private currentCategory: string | undefined;

  private constructor(metadata: ModelMetadata, values: ReadonlyMap<string, Float32Array>, network: InspectionNetwork, mode: InspectionMode) {
    this.metadata = metadata;
    this.values = values;
    this.network = network;
    this.mode = mode;
    this.category = undefined; // sets the threshold
  }

  /**
   * @param model the bytes of a model file
   * @param encoder the encoder that it was trained on; while a promise of it is pending, the pipelines are compiled
   * @throws InputError (damaged or foreign file), EncoderMismatchError, AllocationError, KernelError
   */
  static async open(engine: Engine, model: Uint8Array, encoder: EncoderWeights | Promise<EncoderWeights>, options: InspectorOptions = {}): Promise<Inspector> {
    const { metadata, config, values } = readModel(model, undefined, options.name);
    const checked = Promise.resolve(encoder).then((weights) => {
      checkEncoder(metadata, weights, options.name);
      return weights;
    });
    checked.catch(() => undefined); // told where it is awaited, after the pipelines' start
    const { batchSize = 1, precision, mode = 'trained' } = options;
    if (mode === 'zero-shot' && !metadata.zeroShotCalibration) {
      throw new UsageError(`${options.name ?? 'The model'} has no prototypes to compare an image with (${metadata.method === 'memory' ? 'it is a memory' : `its decoder is ${metadata.decoder}`}): zero-shot inspection needs a model that was trained with them.`);
    }
    const network = await InspectionNetwork.create(engine, checked, config, values, { ...metadata, batchSize, mode, ...(precision && { precision }) });
    return new Inspector(metadata, values, network, mode);
  }

  /** What a model file says of itself; needs no GPU. @throws InputError */
  static readMetadata(model: Uint8Array, name?: string): ModelMetadata {
    return readModelMetadata(model, name);
  }

  /**
   * Of a model of several categories: the one whose threshold and heat scale are used; undefined: the joint ones. Setting it sets
   * the threshold anew. In zero-shot inspection it changes nothing. @throws UsageError for one that the model does not know
   */
  get category(): string | undefined {
    return this.currentCategory;
  }

  set category(name: string | undefined) {
    const { threshold } = calibrationFor(this.metadata, name);
    this.currentCategory = name;
    // The joint one may have been set by the user, and kept.
    if (this.mode !== 'zero-shot') this.currentThreshold = (name === undefined ? this.metadata.threshold : undefined) ?? threshold;
  }

  /** The calibration whose scale heat maps have; in zero-shot inspection that of the categories of training, see {@link ModelMetadata.zeroShotCalibration}. */
  get calibration(): Calibration {
    return this.mode === 'zero-shot' ? this.metadata.zeroShotCalibration! : calibrationFor(this.metadata, this.currentCategory);
  }

  /** Scores above it are defective; calibrated, and settable. NaN in zero-shot inspection until it is set. */
  get threshold(): number {
    return this.currentThreshold;
  }

  set threshold(value: number) {
    if (!Number.isFinite(value)) throw new UsageError(`The threshold must be a finite number, got ${value}.`);
    this.currentThreshold = value;
  }

  async inspect(image: RasterImage, options?: InspectOptions): Promise<Inspection> {
    const [inspection] = await this.inspectBatch([image], options);
    return inspection!;
  }

  /** Any number of images; they are run `batchSize` at a time, tiled ones one after another. */
  async inspectBatch(images: readonly RasterImage[], options?: InspectOptions): Promise<Inspection[]> {
    const results = await inspectFramed(this.network, images, this.metadata, options);
    const { width, height } = toSize(this.metadata.mapSize);
    return results.map((result, i) => this.judge(result, images[i]!, width * height));
  }

  /** The model file's bytes, with the threshold as it is set now. */
  serialize(): Uint8Array {
    const { metadata, currentThreshold } = this;
    // That of a category, or of things that the model does not know, is not the model's.
    if (this.mode === 'zero-shot' || this.category !== undefined) return writeModel(this.values, metadata);
    return writeModel(this.values, { ...metadata, threshold: currentThreshold === metadata.calibration.threshold ? undefined : currentThreshold });
  }

  private judge(inspection: FramedInspection, image: RasterImage, viewArea: number): Inspection {
    const { calibration } = this;
    const threshold = this.currentThreshold;
    const isJudged = !Number.isNaN(threshold);
    const { score, map, mapWidth, mapHeight, tiles } = inspection;
    const level = !isJudged ? Infinity
      : tiles && tiles.length > 1
        ? localLevels(map, mapWidth, mapHeight, calibration, threshold)
        : regionLevel(map, calibration, threshold);
    const { mask, regions } = findRegions(map, level, { ...inspection, viewArea: Math.min(viewArea, map.length), sourceWidth: image.width, sourceHeight: image.height });
    const scale = { low: calibration.scaleLow, high: calibration.scaleHigh };
    return { ...inspection, scale, threshold, verdict: !isJudged ? 'unjudged' : score > threshold ? 'defective' : 'good', mask, regions };
  }

  dispose(): void {
    this.network.dispose();
  }
}

/** Images through the network as the model's framing has it. */
export async function inspectFramed(
  network: InspectionNetwork, images: readonly RasterImage[], model: FramedModel, { tile = model.framing === 'tiles', ...details }: InspectOptions = {},
): Promise<FramedInspection[]> {
  images.forEach((image, i) => checkRasterImage(image, `image ${i + 1}`));
  if (tile) return (await import('./tiles.ts')).inspectInTiles(network, images, model, tile === true ? {} : tile, details);
  if (model.framing === 'keep-aspect') return (await import('./keep-aspect.ts')).inspectUndistorted(network, images, model, details);
  return inspectViews(network, images, model, details);
}

export interface RawInspection {
  readonly score: number;
  readonly map: Float32Array;
  /** In the mode `both`. */
  readonly zeroShot?: { readonly score: number; readonly map: Float32Array };
  /** With details: the outputs of the batch that the image was in, and its slot there. */
  readonly tokens?: TokenOutputs;
  readonly slot: number;
}

const outputsOf = ({ map, score }: Pick<Scoring, 'map' | 'score'>) => ({ map, score });

function detectorOutputs(graph: InspectionGraph, config: DetectorConfig, mapSize: Size, mode: InspectionMode | 'both'): Record<string, Tensor> {
  if (mode === 'trained') return outputsOf(graph.scoring);
  const zeroShot = zeroShotScoring(graph, config, mapSize);
  return mode === 'zero-shot' ? outputsOf(zeroShot) : { ...outputsOf(graph.scoring), zeroShotMap: zeroShot.map, zeroShotScore: zeroShot.score };
}

/** Encoder, trained part and scoring as one plan on the GPU: what an inspector and the calibration after training share. */
export class InspectionNetwork {
  readonly config: DetectorConfig;
  private readonly stage: ImageStage;
  private readonly executable: Executable;
  /** The same, with what prototypes and groups need among the outputs. */
  private detailed: Executable | undefined;
  private readonly prepareDetailed: () => Promise<Executable>;
  private readonly memories: readonly DeviceMemory[];
  /** The run before, ended well or not: the image tensor is one, so calls take turns. */
  private last: Promise<unknown> = Promise.resolve();
  private disposed = false;

  private constructor(config: DetectorConfig, stage: ImageStage, executable: Executable, prepareDetailed: () => Promise<Executable>, memories: readonly DeviceMemory[]) {
    this.config = config;
    this.stage = stage;
    this.executable = executable;
    this.prepareDetailed = prepareDetailed;
    this.memories = memories;
  }

  static async create(
    engine: Engine, encoder: EncoderWeights | Promise<EncoderWeights>, config: DetectorConfig, values: ReadonlyMap<string, Float32Array>,
    options: { resize: Size; mapSize: Size; batchSize: number; precision?: Precision; mode?: InspectionMode | 'both' },
  ): Promise<InspectionNetwork> {
    const { context } = engine;
    const { resize, mapSize, batchSize, precision, mode = 'trained' } = options;
    checkPrecision(context, precision);
    if (!Number.isInteger(batchSize) || batchSize < 1) throw new UsageError(`batchSize must be a positive integer, got ${batchSize}.`);
    const images = imagesLeaf(batchSize, config.crop);
    const memory = config.method === 'memory' ? await import('../model/memory-graph.ts') : undefined;
    const scoring = await scoringOf(config);
    const planned = (details?: (graph: InspectedGraph) => Record<string, Tensor>) => {
      const compiled = (outputs: Record<string, Tensor>, graph: InspectedGraph) => compile({ target: context.target, outputs: { ...outputs, ...details?.(graph) } });
      if (memory) {
        const graph = memory.memoryGraph(images, config, mapSize, precision);
        return compiled(outputsOf(graph.scoring), graph);
      }
      const graph = inspectionGraph(images, config, mapSize, precision, scoring);
      return compiled(detectorOutputs(graph, config, mapSize, mode), graph);
    };
    const plan = planned();
    void Executable.startCompiling(context, plan);
    const stage = await ImageStage.create(context, { resize: toSize(resize), crop: config.crop, batchSize });
    const memories: DeviceMemory[] = [];
    try {
      memories.push(await uploadEncoder(context, await encoder, config, precision), await uploadTrainables(context, values, config, precision));
      const parameters = new Map([...stage.tensors, ...memories.flatMap((m) => [...m.tensors])]);
      const executable = await Executable.prepare(context, plan, parameters);
      return new InspectionNetwork(config, stage, executable, async () => {
        const [{ tokenOutputs }, { groupOutputs }] = await Promise.all([import('./prototype-view.ts'), import('./group-maps.ts')]);
        return Executable.prepare(context, planned((graph) => ({ ...tokenOutputs(graph), ...groupOutputs(graph, config, mapSize) })), parameters);
      }, memories);
    } catch (error) {
      for (const memory of memories) memory.dispose();
      stage.dispose();
      throw error;
    }
  }

  get batchSize(): number {
    return this.stage.batchSize;
  }

  async run(images: readonly RasterImage[], isDetailed = false): Promise<RawInspection[]> {
    images.forEach((image, i) => checkRasterImage(image, `image ${i + 1}`));
    const turn = this.last.then(() => this.runInTurn(images, isDetailed));
    this.last = turn.catch(() => undefined);
    return turn;
  }

  private async runInTurn(images: readonly RasterImage[], isDetailed: boolean): Promise<RawInspection[]> {
    if (this.disposed) throw new UsageError('This inspector was disposed of; open the model again.');
    if (isDetailed && !this.detailed) {
      const detailed = await this.prepareDetailed();
      // Disposed of meanwhile: it would be nobody's.
      if (this.disposed) detailed.dispose();
      else this.detailed = detailed;
      return this.runInTurn(images, isDetailed);
    }
    const executable = isDetailed ? this.detailed! : this.executable;
    const results: RawInspection[] = [];
    for (let start = 0; start < images.length; start += this.stage.batchSize) {
      const batch = images.slice(start, start + this.stage.batchSize);
      for (const [slot, image] of batch.slice(0, -1).entries()) await this.stage.load(image, slot);
      const last = batch.at(-1)!;
      await this.stage.ready(last);
      const outputs = await executable.run({}, { before: (encoder) => this.stage.record(encoder, last, batch.length - 1) });
      const { map, score, zeroShotMap, zeroShotScore } = outputs;
      const pixels = map!.length / this.stage.batchSize;
      batch.forEach((_, slot) => {
        if (!Number.isFinite(score![slot]!)) throw new InputError(`Image ${start + slot + 1} has no finite score: the model or the encoder is damaged.`);
        const part = (of: TensorData) => (of as Float32Array).slice(slot * pixels, (slot + 1) * pixels);
        results.push({
          score: score![slot]!, map: part(map!), slot,
          ...(zeroShotMap && { zeroShot: { score: zeroShotScore![slot]!, map: part(zeroShotMap) } }), ...(isDetailed && { tokens: outputs }),
        });
      });
    }
    return results;
  }

  dispose(): void {
    this.disposed = true;
    this.executable.dispose();
    this.detailed?.dispose();
    this.stage.dispose();
    for (const memory of this.memories) memory.dispose();
  }
}
