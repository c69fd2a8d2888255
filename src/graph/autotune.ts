/**
 * Autotuning: where an operation offers several variants of a kernel, each is timed on the device at hand with the plan's
 * own shapes, and the fastest is remembered by the kernel's key. The variants of a key give the same bits, so that what
 * is picked changes the speed alone. A later plan is compiled with what was found ({@link Target.tuning}).
 */
import { AbortedError } from '../errors.ts';
import { Usage, type GpuContext } from '../gpu/context.ts';
import type { Plan, PlannedDispatch } from './plan.ts';

/** The fastest variant's name by kernel key. */
export type TuningTable = ReadonlyMap<string, string>;

/** Where a table is kept between runs, as text: a file, the browser's storage. */
export interface TuningStore {
  load(): Promise<string | undefined>;
  save(text: string): Promise<void>;
}

export interface AutotuneOptions {
  /** Keys that need no timing any more. */
  readonly known?: TuningTable;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Each variant is run at least this often, and this long in all. */
const leastRuns = 3;
const leastSeconds = 0.004;

/** Times the variants of every tunable kernel of a plan whose key is not known yet. */
export async function autotune(context: GpuContext, plan: Plan, { known = new Map(), signal, onProgress }: AutotuneOptions = {}): Promise<Map<string, string>> {
  const byKey = new Map<string, PlannedDispatch>();
  for (const dispatch of plan.dispatches) {
    if (dispatch.tuning && !known.has(dispatch.tuning.key)) byKey.set(dispatch.tuning.key, dispatch);
  }
  const found = new Map<string, string>();
  for (const [key, dispatch] of byKey) {
    if (signal?.aborted) throw new AbortedError('Stopped while measuring the kernels of this device.');
    found.set(key, await fastest(context, dispatch));
    onProgress?.(found.size, byKey.size);
  }
  return found;
}

async function fastest(context: GpuContext, { bindings, tuning }: PlannedDispatch): Promise<string> {
  const buffers = await context.createBuffers('autotune', bindings.map((b) => b.bytes), Usage.STORAGE);
  try {
    const times: { name: string; seconds: number }[] = [];
    for (const { name, kernel, workgroups } of tuning!.variants()) {
      const { pipeline, layout } = await context.pipelines.get(kernel, bindings.map((b) => b.access));
      const bindGroup = context.device.createBindGroup({
        layout, entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer, size: bindings[binding]!.bytes } })),
      });
      const run = async (count: number): Promise<number> => {
        const encoder = context.device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, bindGroup);
        for (let i = 0; i < count; i++) pass.dispatchWorkgroups(...workgroups);
        pass.end();
        const started = performance.now();
        context.device.queue.submit([encoder.finish()]);
        await context.device.queue.onSubmittedWorkDone();
        context.check();
        return (performance.now() - started) / 1000;
      };
      await run(1);
      // As many dispatches to a submit as make its overhead small.
      const count = Math.max(1, Math.min(64, Math.ceil(leastSeconds / Math.max(await run(1), 1e-5))));
      let seconds = Infinity;
      for (let i = 0; i < leastRuns; i++) seconds = Math.min(seconds, (await run(count)) / count);
      times.push({ name, seconds });
    }
    return times.reduce((best, time) => (time.seconds < best.seconds ? time : best)).name;
  } finally {
    for (const buffer of buffers) context.destroyBuffer(buffer);
  }
}

const format = 1;

/** The table as text for a {@link TuningStore}; it holds for one adapter with one driver. */
export function writeTuning(adapter: string, table: TuningTable): string {
  return JSON.stringify({ format, adapter, variants: Object.fromEntries([...table].sort(([a], [b]) => (a < b ? -1 : 1))) });
}

/** What was kept for this adapter; an empty table where the text is damaged, of another format, or of another adapter. */
export function readTuning(adapter: string, text: string | undefined): Map<string, string> {
  try {
    const kept = JSON.parse(text ?? '') as { format: number; adapter: string; variants: Record<string, unknown> };
    if (kept.format !== format || kept.adapter !== adapter) return new Map();
    return new Map(Object.entries(kept.variants).filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
  } catch {
    return new Map();
  }
}
