/**
 * What the model that is being trained makes of one image. The image is encoded once; after that its map comes from the
 * trained tensors as they lie on the GPU, between two steps: nothing is copied, and the training's bits stay what they are.
 */
import { checkRasterImage, type ImageSource } from '../data/image.ts';
import type { Engine } from '../engine.ts';
import type { DeviceTensor } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile } from '../graph/plan.ts';
import { input, type TensorData } from '../graph/tensor.ts';
import { tokenGrid, type DetectorConfig } from '../model/config.ts';
import { reconstruct } from '../model/detector.ts';
import { fuseGroups } from '../model/encoder.ts';
import { encodingGraph } from '../model/graphs.ts';
import { ImageStage } from '../model/image-stage.ts';
import { uploadEncoder } from '../model/memory.ts';
import { trainableLeaves } from '../model/parameters.ts';
import { defaultMapSize, scoreReconstruction } from '../model/scoring.ts';
import type { EncoderWeights } from '../weights/encoder.ts';

export interface PreviewOptions {
  /** Any image; one with a defect shows best what the model learns. */
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
}

export class Preview {
  private readonly executable: Executable;
  private readonly features: Readonly<Record<string, TensorData>>;
  private readonly options: PreviewOptions;
  private first: number | undefined;
  private running: Promise<void> | undefined;

  private constructor(executable: Executable, features: Readonly<Record<string, TensorData>>, options: PreviewOptions) {
    this.executable = executable;
    this.features = features;
    this.options = options;
  }

  /** @param trainables the tensors in training, by their leaves' names */
  static async create(
    engine: Engine, encoder: EncoderWeights, config: DetectorConfig, resize: number, options: PreviewOptions, trainables: ReadonlyMap<string, DeviceTensor>,
  ): Promise<Preview> {
    const features = await encodeOne(engine, encoder, config, resize, options.image);
    const leaves = Object.keys(features).map((name) => input(name, [1, tokenGrid(config).count, config.architecture.width]));
    const groups = leaves.slice(0, config.encoderGroups.length);
    const { groups: reconstructed } = reconstruct(leaves[groups.length] ?? fuseGroups(groups, config), trainableLeaves(config), config);
    const { map, score } = scoreReconstruction(groups, reconstructed, config, defaultMapSize);
    const plan = compile({ target: engine.context.target, outputs: { map, score } });
    return new Preview(await Executable.prepare(engine.context, plan, trainables), features, options);
  }

  /** Submits a map of the model as it is now, where one is due. While the one before is not done, none is, but for the last. */
  async observe(step: number, isLast: boolean): Promise<void> {
    this.first ??= step;
    if (isLast) await this.running;
    else if (this.running || (step - this.first) % (this.options.everySteps ?? 10) !== 0) return;
    this.running = this.executable.run(this.features).then(({ map, score }) => {
      this.running = undefined;
      this.options.onMap({ step, score: score![0]!, map: map as Float32Array, mapWidth: defaultMapSize, mapHeight: defaultMapSize });
    });
    // Unless it is waited for: a lost device shows in the steps as well.
    this.running.catch(() => undefined);
    if (isLast) await this.running;
  }

  dispose(): void {
    this.executable.dispose();
  }
}

async function encodeOne(engine: Engine, encoder: EncoderWeights, config: DetectorConfig, resize: number, source: ImageSource): Promise<Record<string, TensorData>> {
  const { context } = engine;
  const image = await source.load();
  checkRasterImage(image, source.name);
  const stage = await ImageStage.create(context, { resize: { width: resize, height: resize }, crop: config.crop, batchSize: 1 });
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
