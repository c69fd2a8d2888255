/** How fast a device is at what fills the time: matrix products. Loaded by those who ask. */
import type { GpuContext } from '../gpu/context.ts';
import { Executable } from '../graph/executor.ts';
import { compile } from '../graph/plan.ts';
import { input } from '../graph/tensor.ts';
import { matmul } from './matmul.ts';

/** Of a product of the size that a small encoder's layers have, the best of three, in GFLOP/s. */
export async function measureSpeed(context: GpuContext): Promise<{ gflops: number }> {
  const size = context.adapter.isSoftware ? { rows: 256, columns: 768, depth: 192 } : { rows: 2048, columns: 2048, depth: 1024 };
  const product = matmul(input('a', [size.rows, size.depth]), input('b', [size.depth, size.columns]), { shape: [size.rows, size.columns] });
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { product } }));
  try {
    const inputs = { a: new Float32Array(size.rows * size.depth).fill(0.5), b: new Float32Array(size.depth * size.columns).fill(0.25) };
    await executable.run(inputs, { read: [] });
    await context.device.queue.onSubmittedWorkDone();
    let best = Infinity;
    for (let i = 0; i < 3; i++) {
      const started = performance.now();
      await executable.run(inputs, { read: [] });
      await context.device.queue.onSubmittedWorkDone();
      best = Math.min(best, (performance.now() - started) / 1000);
    }
    return { gflops: executable.plan.report.flops / best / 1e9 };
  } finally {
    executable.dispose();
  }
}
