/** How long each dispatch of a plan takes on the GPU, by its own clock; for benchmarks alone, so loaded only by them. */
import { UsageError } from '../errors.ts';
import { Usage, type GpuContext } from '../gpu/context.ts';
import type { Plan } from './plan.ts';

export interface DispatchTiming {
  readonly node: string;
  readonly kernel: string;
  readonly seconds: number;
  readonly flops: number;
  readonly bytes: number;
}

/** @param encode records dispatch `i` of the plan */
export async function timeDispatches(context: GpuContext, plan: Plan, encode: (pass: GPUComputePassEncoder, i: number) => void): Promise<DispatchTiming[]> {
  const { device } = context;
  if (!device.features.has('timestamp-query')) throw new UsageError('This adapter has no timestamp-query.');
  const timings: DispatchTiming[] = [];
  const limit = 2048; // timestamps a query set may hold: 4096
  for (let start = 0; start < plan.dispatches.length; start += limit) {
    const part = plan.dispatches.slice(start, start + limit);
    const querySet = device.createQuerySet({ type: 'timestamp', count: part.length * 2 });
    const resolved = context.createBuffer('timestamps', part.length * 16, Usage.QUERY_RESOLVE | Usage.COPY_SRC);
    const staging = context.createBuffer('timestamps', part.length * 16, Usage.MAP_READ | Usage.COPY_DST);
    const encoder = device.createCommandEncoder();
    part.forEach((_, i) => {
      const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 } });
      encode(pass, start + i);
      pass.end();
    });
    encoder.resolveQuerySet(querySet, 0, part.length * 2, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, part.length * 16);
    device.queue.submit([encoder.finish()]);
    const stamps = new BigUint64Array(await context.readStaging(staging, part.length * 16));
    part.forEach(({ node, kernel, flops, bytes }, i) => {
      timings.push({ node, kernel: kernel.label, seconds: Number(stamps[2 * i + 1]! - stamps[2 * i]!) * 1e-9, flops, bytes });
    });
    querySet.destroy();
    context.destroyBuffer(resolved);
    context.destroyBuffer(staging);
  }
  return timings;
}
