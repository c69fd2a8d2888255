/** One training step of the segmentation head on the GPU: residuals and masks in, Dice loss out, in one plan and one submit. */
import { UsageError } from '../errors.ts';
import type { GpuContext } from '../gpu/context.ts';
import { compile, type Plan } from '../graph/plan.ts';
import type { Target } from '../gpu/target.ts';
import { tokenGrid, type DetectorConfig } from '../model/config.ts';
import { headItems } from '../model/parameters.ts';
import { headTrainingGraph } from '../model/plus-objective.ts';
import { stableAdamWSchedule } from '../ops/index.ts';
import { TrainingState, type TrainedTensors } from './step.ts';

/** The plan of a head's step, made without a GPU. */
export function planHeadStep(config: DetectorConfig, batchSize: number, target: Target): { plan: Plan; slices: readonly number[] } {
  const { slices, loss, norm, updates } = headTrainingGraph(config, batchSize, target);
  return { slices, plan: compile({ target, outputs: { loss, norm }, effects: updates }) };
}

/** f32 values that the head's training takes of an image: the residual [N, C], then the mask [H, W]. */
export function sampleSize(config: DetectorConfig): { residual: number; mask: number } {
  return { residual: tokenGrid(config).count * config.architecture.width, mask: config.crop.height * config.crop.width };
}

export class HeadStep {
  private readonly config: DetectorConfig;
  private readonly slices: readonly number[];
  private readonly state: TrainingState;

  private constructor(config: DetectorConfig, slices: readonly number[], state: TrainingState) {
    this.config = config;
    this.slices = slices;
    this.state = state;
  }

  static async create(context: GpuContext, config: DetectorConfig, batchSize: number, state: TrainedTensors): Promise<HeadStep> {
    const { plan, slices } = planHeadStep(config, batchSize, context.target);
    return new HeadStep(config, slices, await TrainingState.create(context, headItems(config), plan, state));
  }

  /**
   * @param samples one array an image, see {@link sampleSize}
   * @param t the optimiser's step, from 1
   */
  async run(samples: readonly Float32Array[], t: number, learningRate: number): Promise<{ loss: number; norm: number }> {
    const batch = this.slices.reduce((a, b) => a + b, 0);
    if (samples.length !== batch) throw new UsageError(`The step takes ${batch} images, got ${samples.length}.`);
    const { residual, mask } = sampleSize(this.config);
    const inputs: Record<string, Float32Array> = { schedule: stableAdamWSchedule(t, learningRate) };
    let first = 0;
    this.slices.forEach((size, s) => {
      const [residuals, masks] = [new Float32Array(size * residual), new Float32Array(size * mask)];
      for (let b = 0; b < size; b++) {
        residuals.set(samples[first + b]!.subarray(0, residual), b * residual);
        masks.set(samples[first + b]!.subarray(residual), b * mask);
      }
      inputs[`residual.${s}`] = residuals;
      inputs[`mask.${s}`] = masks;
      first += size;
    });
    const { loss, norm } = await this.state.executable.run(inputs);
    return { loss: loss![0]!, norm: norm![0]! };
  }

  readState(): Promise<Required<TrainedTensors>> {
    return this.state.read();
  }

  dispose(): void {
    this.state.dispose();
  }
}
