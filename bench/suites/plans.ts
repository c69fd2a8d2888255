/**
 * A model's plans made ready to run and to be taken apart: the package's own inspection network and training step, with the
 * executables that they keep to themselves, because only those can be profiled.
 */
import { InspectionNetwork } from '../../src/inspect/inspector.ts';
import type { Executable } from '../../src/graph/executor.ts';
import type { TensorData } from '../../src/graph/tensor.ts';
import { tokenGrid } from '../../src/model/config.ts';
import { inspectionGraph } from '../../src/model/graphs.ts';
import { imagesLeaf, type ImageStage } from '../../src/model/image-stage.ts';
import type { Precision } from '../../src/model/parameters.ts';
import { stableAdamWSchedule } from '../../src/ops/index.ts';
import { planTrainingStep, TrainingStep } from '../../src/train/step.ts';
import { compileFor, type Runner } from './bench.ts';
import { mapSize, type LoadedModel } from './models.ts';
import type { EncoderWeights } from '../../src/weights/encoder.ts';

export interface InspectionPlan {
  readonly network: InspectionNetwork;
  readonly executable: Executable;
  readonly stage: ImageStage;
  dispose(): void;
}

export interface InspectionOptions {
  readonly batchSize: number;
  /** Storage of the weights. */
  readonly precision?: Precision;
}

export async function prepareInspection(runner: Runner, { config, encoder, trained, case: { crop } }: Pick<LoadedModel, 'config' | 'trained' | 'case'> & { encoder: EncoderWeights | Promise<EncoderWeights> }, { batchSize, precision = 'f32' }: InspectionOptions): Promise<InspectionPlan> {
  if (runner.tune) {
    const { map, score } = inspectionGraph(imagesLeaf(batchSize, config.crop), config, mapSize, precision).scoring;
    await compileFor(runner, { map, score });
  }
  const network = await InspectionNetwork.create(runner.engine, encoder, config, trained, { resize: crop, mapSize, batchSize, precision });
  return { network, executable: network['executable'], stage: network['stage'], dispose: () => network.dispose() };
}

export interface TrainingPlan {
  readonly step: TrainingStep;
  readonly executable: Executable;
  /** The plan's inputs for a batch of equal images; the learning rate is 0, so that every step starts from the same weights. */
  inputs(features: Float32Array): Record<string, TensorData>;
  dispose(): void;
}

export async function prepareTraining({ engine, tune }: Runner, { config, trained }: LoadedModel, batchSize: number): Promise<TrainingPlan> {
  const { context } = engine;
  if (tune) await engine.tune(planTrainingStep(config, batchSize, context.target).plan);
  const step = await TrainingStep.create(context, config, batchSize, { values: new Map(trained) });
  const each = tokenGrid(config).count * config.architecture.width;
  const inputs = (features: Float32Array): Record<string, TensorData> => {
    const all: Record<string, TensorData> = { schedule: stableAdamWSchedule(1, 0) };
    step['slices'].forEach((size, s) => {
      for (let i = 0; i * each < features.length; i++) {
        const values = new Float32Array(size * each);
        for (let b = 0; b < size; b++) values.set(features.subarray(i * each, (i + 1) * each), b * each);
        all[`features.${i}.${s}`] = values;
      }
    });
    return all;
  };
  return { step, executable: step['state'].executable, inputs, dispose: () => step.dispose() };
}
