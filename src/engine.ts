/**
 * What a program holds on to: the device with its pipelines, and how fast it is. Everything else (training, inspection,
 * an embedder's own graphs) is done with an engine.
 */
import { GpuContext, type AcquireOptions, type AdapterReport } from './gpu/context.ts';
import { compile } from './graph/plan.ts';
import { Executable } from './graph/executor.ts';
import { input, type Tensor } from './graph/tensor.ts';
import type { DeviceLostError } from './errors.ts';
import type { DeviceTensor } from './gpu/memory.ts';
import { matmul } from './ops/index.ts';

export class Engine {
  readonly context: GpuContext;

  private constructor(context: GpuContext) {
    this.context = context;
  }

  /**
   * @param options.gpu `navigator.gpu`, or Dawn's; or `options.device`, a device of the program's own.
   * @throws AdapterError
   */
  static async create(options: AcquireOptions): Promise<Engine> {
    return new Engine(await GpuContext.acquire(options));
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
    const size = this.adapter.isSoftware ? { rows: 256, columns: 768, depth: 192 } : { rows: 2048, columns: 2048, depth: 1024 };
    const product = matmul(input('a', [size.rows, size.depth]), input('b', [size.depth, size.columns]), { shape: [size.rows, size.columns] });
    const executable = await this.prepare({ product });
    try {
      const inputs = { a: new Float32Array(size.rows * size.depth).fill(0.5), b: new Float32Array(size.depth * size.columns).fill(0.25) };
      await executable.run(inputs, { read: [] });
      await this.context.device.queue.onSubmittedWorkDone();
      let best = Infinity;
      for (let i = 0; i < 3; i++) {
        const started = performance.now();
        await executable.run(inputs, { read: [] });
        await this.context.device.queue.onSubmittedWorkDone();
        best = Math.min(best, (performance.now() - started) / 1000);
      }
      return { gflops: executable.plan.report.flops / best / 1e9 };
    } finally {
      executable.dispose();
    }
  }

  dispose(): void {
    this.context.dispose();
  }
}
