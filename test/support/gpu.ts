/** The adapter that the GPU tests run on: the one that INP_ADAPTER names (test/run.mjs runs the suite once for each). */
import { GpuContext } from '../../src/gpu/context.ts';
import { createGpu, type AdapterChoice } from '../../src/node/adapter.ts';

let context: Promise<GpuContext> | undefined;

/** As `--adapter` takes it. */
export function testAdapter(): AdapterChoice {
  return (process.env['INP_ADAPTER'] ?? 'swiftshader') as AdapterChoice;
}

/** Where adapters come from, for tests that need a device of their own. */
export function testGpu(): Promise<GPU> {
  return createGpu(testAdapter());
}

/** One context for all tests of a file. Fails, never skips, where there is no adapter. */
export function testContext(): Promise<GpuContext> {
  context ??= testGpu().then((gpu) => GpuContext.acquire({ gpu }));
  return context;
}

let nullDawn: GPU | undefined;

/**
 * Dawn's null back end: it checks modules and makes pipelines, with features that no adapter at hand has, and computes
 * nothing. It loads no driver, so it can live beside the adapter of the tests.
 */
export async function nullGpu(): Promise<GPU> {
  const { create } = await import('webgpu') as unknown as { create(options: string[]): GPU };
  // Kept: it must outlive every object made from it.
  nullDawn ??= create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);
  return nullDawn;
}
