/**
 * What a program holds on to: the device with its pipelines, and how fast it is. Everything else (training, inspection,
 * an embedder's own graphs) is done with an engine.
 */
import { GpuContext, type AcquireOptions, type AdapterReport } from './gpu/context.ts';
import type { AutotuneOptions, TuningStore } from './graph/autotune.ts';
import { compile, type Plan } from './graph/plan.ts';
import { Executable } from './graph/executor.ts';
import type { Tensor } from './graph/tensor.ts';
import type { DeviceLostError } from './errors.ts';
import type { DeviceTensor } from './gpu/memory.ts';
import { loadMatrixUnits } from './ops/matrix-units.ts';

export interface EngineOptions extends AcquireOptions {
  /** Where the fastest kernel variants of this device are kept from one run to the next; without it they are measured anew. */
  readonly tuning?: TuningStore;
}

export class Engine {
  readonly context: GpuContext;
  private readonly tuningStore: TuningStore | undefined;

  private constructor(context: GpuContext, tuningStore: TuningStore | undefined) {
    this.context = context;
    this.tuningStore = tuningStore;
  }

  /**
   * @param options.gpu `navigator.gpu`, or Dawn's; or `options.device`, a device of the program's own.
   * @throws AdapterError
   */
  static async create({ tuning, ...options }: EngineOptions): Promise<Engine> {
    const engine = new Engine(await GpuContext.acquire(options), tuning);
    if (engine.context.target.subgroupMatrix) await loadMatrixUnits();
    const kept = await tuning?.load();
    if (kept !== undefined) {
      const { readTuning } = await import('./graph/autotune.ts');
      for (const [key, variant] of readTuning(engine.adapter.name, kept)) engine.context.target.tuning!.set(key, variant);
    }
    return engine;
  }

  /**
   * Measures which kernel variants are fastest on this device for plans like this one, and keeps it: plans that are compiled
   * from now on use them. Takes seconds where the shapes are new, nothing where they are known. The numbers that plans give
   * do not depend on it.
   * @returns how many kernels were measured
   */
  async tune(plan: Plan, options: Omit<AutotuneOptions, 'known'> = {}): Promise<number> {
    // Software adapters are not tuned: what measures is loaded where it does.
    const { autotune, writeTuning } = await import('./graph/autotune.ts');
    const known = this.context.target.tuning!;
    const found = await autotune(this.context, plan, { ...options, known });
    if (found.size === 0) return 0;
    for (const [key, variant] of found) known.set(key, variant);
    await this.tuningStore?.save(writeTuning(this.adapter.name, known));
    return found.size;
  }

  get adapter(): AdapterReport {
    return this.context.adapter;
  }

  /** Called once if the device is lost; returns a function that stops listening. */
  onLost(listener: (error: DeviceLostError) => void): () => void {
    return this.context.onLost(listener);
  }

  /** Compiles a graph of the program's own and makes it ready to run on this device. */
  prepare(outputs: Readonly<Record<string, Tensor>>, parameters?: ReadonlyMap<string, DeviceTensor>): Promise<Executable> {
    return Executable.prepare(this.context, compile({ target: this.context.target, outputs }), parameters);
  }

  /** Speed of a matrix product of the size that a small encoder's layers have: what can be expected here, in GFLOP/s. */
  async measureSpeed(): Promise<{ gflops: number }> {
    return (await import('./ops/measure-speed.ts')).measureSpeed(this.context);
  }

  /** Frees all GPU memory of this engine, its inspectors' too. A device of the program's own stays as it was given. */
  dispose(): void {
    this.context.dispose();
  }
}
