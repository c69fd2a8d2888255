/** What a model costs, without a GPU: the plan of an inspection or of a training step for an encoder and a crop. */
import { defaultTarget, type Target } from '../gpu/target.ts';
import { compile, type PlanReport } from '../graph/plan.ts';
import { detectorConfig, type DetectorOptions } from '../model/config.ts';
import { inspectionGraph } from '../model/graphs.ts';
import { imagesLeaf } from '../model/image-stage.ts';
import { planTrainingStep } from './step.ts';

export type { PlanReport } from '../graph/plan.ts';

export interface PlanReportOptions extends DetectorOptions {
  readonly batchSize: number;
  /** A training step (on cached features) instead of an inspection. */
  readonly train: boolean;
  /** Default: the limits that every WebGPU implementation guarantees. */
  readonly target?: Target;
}

/** @throws UsageError, AllocationError where it can't fit the target */
export function planReport(options: PlanReportOptions): PlanReport & { slices: number } {
  const { batchSize, train, target = defaultTarget } = options;
  const config = detectorConfig(options);
  if (!train) {
    const { scoring } = inspectionGraph(imagesLeaf(batchSize, config.crop), config);
    return { ...compile({ target, outputs: { map: scoring.map, score: scoring.score } }).report, slices: 1 };
  }
  const { plan, slices } = planTrainingStep(config, batchSize, target);
  return { ...plan.report, slices: slices.length };
}
