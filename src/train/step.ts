/**
 * One training step on the GPU: features in, loss and gradient norm out, parameters and moments changed in place, all
 * in one plan and one submit. The trained tensors lie one after another in flat memory, so the optimiser updates all
 * of them in a few dispatches while the model's kernels bind each by its name.
 */
import { UsageError } from '../errors.ts';
import type { GpuContext } from '../gpu/context.ts';
import { DeviceMemory, type DeviceTensor, type MemoryItem } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile, type Plan } from '../graph/plan.ts';
import type { Target } from '../gpu/target.ts';
import { groupsPartitionTaps, tokenGrid, type DetectorConfig } from '../model/config.ts';
import { optimizerState, stateLeaf, trainingGraph, type TrainingGraphOptions, type OptimizerState } from '../model/graphs.ts';
import { trainableItems, trainablePrefix } from '../model/parameters.ts';
import { stableAdamWSchedule } from '../ops/index.ts';

/** Trained tensors and optimiser moments by name; moments left out are zero. */
export interface TrainedTensors {
  readonly values: Map<string, Float32Array>;
  readonly firstMoment?: Map<string, Float32Array>;
  readonly secondMoment?: Map<string, Float32Array>;
  readonly maxSecondMoment?: Map<string, Float32Array>;
}

const defaultMemoryBudget = 4 * 1024 ** 3;

export interface TrainingPlanOptions extends Omit<TrainingGraphOptions, 'slices'> {
  /** Bytes of GPU memory that a step should not exceed, default 4 GiB: above it, cheap tensors are computed twice rather than kept. */
  readonly memoryBudget?: number;
}

/** The plan of a training step, made without a GPU. */
export function planTrainingStep(config: DetectorConfig, batchSize: number, target: Target, { memoryBudget = defaultMemoryBudget, ...objective }: TrainingPlanOptions = {}): { plan: Plan; slices: readonly number[] } {
  const graph = trainingGraph(config, batchSize, target, objective);
  const { loss, cosine, coherence } = graph.objective;
  // The optimiser binds the trained tensors a second time, as one flat array: the same memory.
  const shared = graph.groups.reduce((sum, { total }) => sum + total * 4, 0);
  const compiled = (recompute: boolean): Plan => {
    const plan = compile({ target, outputs: { loss, cosine, ...(coherence && { coherence }), norm: graph.norm }, effects: graph.updates, recompute });
    const { report } = plan;
    return { ...plan, report: { ...report, peakBytes: report.peakBytes - shared, parameterBytes: report.parameterBytes - shared } };
  };
  const whole = compiled(false);
  return { slices: graph.slices, plan: whole.report.peakBytes > memoryBudget ? compiled(true) : whole };
}

/** A plan that trains, and the memory that it changes: values and the optimiser's moments. */
export class TrainingState {
  readonly memories: Readonly<Record<OptimizerState, DeviceMemory>>;
  readonly executable: Executable;

  private constructor(memories: Readonly<Record<OptimizerState, DeviceMemory>>, executable: Executable) {
    this.memories = memories;
    this.executable = executable;
  }

  /** @param items of the trained tensors, as the plan's optimiser takes them */
  static async create(context: GpuContext, items: readonly MemoryItem[], plan: Plan, state: TrainedTensors): Promise<TrainingState> {
    const entries: [OptimizerState, DeviceMemory][] = [];
    try {
      for (const name of optimizerState) entries.push([name, await DeviceMemory.allocate(context, `optimizer ${name}`, items)]);
      const memories = Object.fromEntries(entries) as Record<OptimizerState, DeviceMemory>;
      const parameters = new Map<string, DeviceTensor>(memories.values.tensors);
      for (const [name, memory] of entries) {
        memory.buffers.forEach((buffer, i) => parameters.set(stateLeaf(name, i), { buffer, offset: 0, bytes: buffer.size }));
        for (const [tensor, data] of state[name] ?? []) memory.write(trainablePrefix + tensor, data);
      }
      return new TrainingState(memories, await Executable.prepare(context, plan, parameters));
    } catch (error) {
      for (const [, memory] of entries) memory.dispose();
      throw error;
    }
  }

  /** Trained tensors and moments as they are after the runs so far. */
  async read(): Promise<Required<TrainedTensors>> {
    const entries = await Promise.all(optimizerState.map(async (name) => {
      const tensors = await this.memories[name].read();
      return [name, new Map([...tensors].map(([tensor, data]) => [tensor.slice(trainablePrefix.length), data]))] as const;
    }));
    return Object.fromEntries(entries) as unknown as Required<TrainedTensors>;
  }

  dispose(): void {
    this.executable.dispose();
    for (const memory of Object.values(this.memories)) memory.dispose();
  }
}

export class TrainingStep {
  private readonly config: DetectorConfig;
  private readonly slices: readonly number[];
  private readonly state: TrainingState;

  private constructor(config: DetectorConfig, slices: readonly number[], state: TrainingState) {
    this.config = config;
    this.slices = slices;
    this.state = state;
  }

  static async create(context: GpuContext, config: DetectorConfig, batchSize: number, state: TrainedTensors, options?: TrainingPlanOptions): Promise<TrainingStep> {
    const { plan, slices } = planTrainingStep(config, batchSize, context.target, options);
    return new TrainingStep(config, slices, await TrainingState.create(context, trainableItems(config), plan, state));
  }

  get plan(): Plan {
    return this.state.executable.plan;
  }

  /** The trained tensors where they lie, by their leaves' names. */
  get trainables(): ReadonlyMap<string, DeviceTensor> {
    return this.state.memories.values.tensors;
  }

  /** Submits made so far: one a step. */
  get submits(): number {
    return this.state.executable.submits;
  }

  /**
   * @param features one array an image: its feature tensors [N, C] one after another, as the cache holds them
   * @param t the optimiser's step, from 1
   */
  async run(features: readonly Float32Array[], t: number, learningRate: number): Promise<{ loss: number; cosine: number; coherence: number | undefined; norm: number }> {
    const batch = this.slices.reduce((a, b) => a + b, 0);
    if (features.length !== batch) throw new UsageError(`The step takes ${batch} images, got ${features.length}.`);
    const each = tokenGrid(this.config).count * this.config.architecture.width;
    const tensors = this.config.encoderGroups.length + (groupsPartitionTaps(this.config) ? 0 : 1);
    const inputs: Record<string, Float32Array> = { schedule: stableAdamWSchedule(t, learningRate) };
    let first = 0;
    this.slices.forEach((size, s) => {
      for (let i = 0; i < tensors; i++) {
        const values = new Float32Array(size * each);
        for (let b = 0; b < size; b++) values.set(features[first + b]!.subarray(i * each, (i + 1) * each), b * each);
        inputs[`features.${i}.${s}`] = values;
      }
      first += size;
    });
    const { loss, cosine, coherence, norm } = await this.state.executable.run(inputs);
    return { loss: loss![0]!, cosine: cosine![0]!, coherence: coherence?.[0], norm: norm![0]! };
  }

  /** Trained tensors and moments as they are after the runs so far. */
  readState(): Promise<Required<TrainedTensors>> {
    return this.state.read();
  }

  dispose(): void {
    this.state.dispose();
  }
}
