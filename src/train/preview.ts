/**
 * What the model that is being trained makes of one image. The image is encoded once; after that its map comes from the
 * trained tensors as they lie on the GPU, between two steps: nothing is copied, and the training's bits stay what they are.
 */
import { checkRasterImage, type ImageSource, type RasterImage } from '../data/image.ts';
import { toSize } from '../data/preprocess.ts';
import type { Engine } from '../engine.ts';
import type { DeviceTensor } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile } from '../graph/plan.ts';
import { input, type TensorData } from '../graph/tensor.ts';
import { placeMap, type MapPlacement } from '../inspect/regions.ts';
import { tokenGrid, type DetectorConfig, type ImageSize } from '../model/config.ts';
import { reconstruct } from '../model/detector.ts';
import { fuseGroups } from '../model/encoder.ts';
import { encodingGraph } from '../model/graphs.ts';
import { ImageStage } from '../model/image-stage.ts';
import { uploadEncoder } from '../model/memory.ts';
import { trainableLeaves } from '../model/parameters.ts';
import { scoreReconstruction } from '../model/scoring.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import type { Settings } from './train.ts';

export interface PreviewOptions {
  /** Any image; one with a defect shows best what the model learns. Where the model is trained on tiles, its middle one is shown. */
  readonly image: ImageSource;
  /** Default 10. The first map is that of the untrained model. */
  readonly everySteps?: number;
  readonly onMap: (preview: TrainingPreview) => void;
}

export interface TrainingPreview {
  /** Steps done. */
  readonly step: number;
  readonly score: number;
  /** Anomaly map over the crop, row-major. It has no calibrated scale yet: at first all of it is far from 0. */
  readonly map: Float32Array;
  readonly mapWidth: number;
  readonly mapHeight: number;
  /** Where the map lies in the image; beyond it where an image is extended so as not to be distorted. */
  readonly placement: MapPlacement;
}

export class Preview {
  private readonly executable: Executable;
  private readonly features: Readonly<Record<string, TensorData>>;
  private readonly options: PreviewOptions;
  private readonly place: Pick<TrainingPreview, 'mapWidth' | 'mapHeight' | 'placement'>;
  private first: number | undefined;
  private running: Promise<void> | undefined;

  private constructor(executable: Executable, features: Readonly<Record<string, TensorData>>, options: PreviewOptions, place: Preview['place']) {
    this.executable = executable;
    this.features = features;
    this.options = options;
    this.place = place;
  }

  /** @param trainables the tensors in training, by their leaves' names */
  static async create(
    engine: Engine, encoder: EncoderWeights, config: DetectorConfig, settings: Settings, options: PreviewOptions, trainables: ReadonlyMap<string, DeviceTensor>,
  ): Promise<Preview> {
    const { resize, framed: { mapSize } } = settings;
    const { view, at } = await viewOf(options.image, settings, encoder.architecture.patchSize);
    const features = await encodeOne(engine, encoder, config, resize, view);
    const leaves = Object.keys(features).map((name) => input(name, [1, tokenGrid(config).count, config.architecture.width]));
    const groups = leaves.slice(0, config.encoderGroups.length);
    const { groups: reconstructed } = reconstruct(leaves[groups.length] ?? fuseGroups(groups, config), trainableLeaves(config), config);
    const { map, score } = scoreReconstruction(groups, reconstructed, config, mapSize);
    const plan = compile({ target: engine.context.target, outputs: { map, score } });
    const { width: mapWidth, height: mapHeight } = toSize(mapSize);
    const { x, y, ...scales } = placeMap({ resize, crop: config.crop, sourceWidth: view.width, sourceHeight: view.height, mapWidth, mapHeight });
    const place = { mapWidth, mapHeight, placement: { x: x + at.x, y: y + at.y, ...scales } };
    return new Preview(await Executable.prepare(engine.context, plan, trainables), features, options, place);
  }

  /** Submits a map of the model as it is now, where one is due. While the one before is not done, none is, but for the last. */
  async observe(step: number, isLast: boolean): Promise<void> {
    this.first ??= step;
    if (isLast) await this.running;
    else if (this.running || (step - this.first) % (this.options.everySteps ?? 10) !== 0) return;
    this.running = this.executable.run(this.features).then(({ map, score }) => {
      this.running = undefined;
      this.options.onMap({ step, score: score![0]!, map: map as Float32Array, ...this.place });
    });
    // Unless it is waited for: a lost device shows in the steps as well.
    this.running.catch(() => undefined);
    if (isLast) await this.running;
  }

  dispose(): void {
    this.executable.dispose();
  }
}

/** What the encoder sees of the image: all of it, stretched or extended, or its middle tile; and where that lies in the image. */
async function viewOf(source: ImageSource, { resize, training: { framing, tile } }: Settings, patchSize: number): Promise<{ view: RasterImage; at: { readonly x: number; readonly y: number } }> {
  const image = await source.load();
  checkRasterImage(image, source.name);
  if (framing === 'stretch') return { view: image, at: { x: 0, y: 0 } };
  if (framing === 'keep-aspect') {
    const { image: view, box: at = { x: 0, y: 0 } } = (await import('../inspect/keep-aspect.ts')).extended(image, resize, patchSize);
    return { view, at };
  }
  const boxes = (await import('../inspect/tiles.ts')).trainingTiles(image, tile!);
  const at = boxes[boxes.length >> 1]!;
  return { view: (await import('../inspect/view.ts')).cutView(image, at), at };
}

async function encodeOne(engine: Engine, encoder: EncoderWeights, config: DetectorConfig, resize: ImageSize, image: RasterImage): Promise<Record<string, TensorData>> {
  const { context } = engine;
  const stage = await ImageStage.create(context, { resize, crop: config.crop, batchSize: 1 });
  try {
    const memory = await uploadEncoder(context, encoder, config);
    try {
      const plan = compile({ target: context.target, outputs: encodingGraph(config, 1) });
      const executable = await Executable.prepare(context, plan, new Map([...stage.tensors, ...memory.tensors]));
      await stage.ready(image);
      return await executable.run({}, { before: (commands) => stage.record(commands, image, 0) }).finally(() => executable.dispose());
    } finally {
      memory.dispose();
    }
  } finally {
    stage.dispose();
  }
}
