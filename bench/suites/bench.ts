/**
 * What a suite is given, the same in a page and in Node: an engine, the platform's few services, how often to run things,
 * and where to report to.
 */
import type { Engine } from '../../src/engine.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import type { Executable } from '../../src/graph/executor.ts';
import { compile, type Plan } from '../../src/graph/plan.ts';
import { sizeOf, type Tensor } from '../../src/graph/tensor.ts';
import type { LeftOut, Measurement, Sampling } from '../measurement.ts';
import type { Peer } from '../peers/peer.ts';
import type { ModelCase } from './models.ts';
import type { Peaks } from './peaks.ts';
import type { Traffic } from './traffic.ts';

export interface Platform {
  readonly runtime: 'chrome' | 'node';
  /** Where adapters come from. */
  readonly gpu: GPU;
  /** A file of the package's, or `encoders/NAME.safetensors` of the folder that the user named; undefined where there is none. */
  readFile(path: string): Promise<Uint8Array | undefined>;
  log(text: string): void;
  report(measurement: Measurement): void;
  leaveOut(leftOut: LeftOut): void;
  /** What is raced against, as far as it runs here. */
  readonly peers: readonly Peer[];
}

export interface Settings {
  readonly sampling: Sampling;
  /** One image at a time, and few variants of everything. */
  readonly quick: boolean;
  readonly models: readonly ModelCase[];
  /** What one run may take by estimate; slower ones are left out, seconds. */
  readonly runLimit: number;
  /** What one run of a peer may take, seconds. */
  readonly peerTimeout: number;
  /** Ids of the measurements that are taken over from an earlier results file. */
  readonly reused: readonly string[];
}

/** An engine, and whether plans get the kernel variants that are fastest on this device, as training finds them, or the built-in choice. */
export interface Runner {
  readonly engine: Engine;
  readonly tune: boolean;
}

export interface Bench extends Runner {
  readonly platform: Platform;
  readonly traffic: Traffic;
  readonly settings: Settings;
  readonly peaks: Peaks;
}

/** Compiles a graph for the runner's device. */
export async function compileFor({ engine, tune }: Runner, outputs: Readonly<Record<string, Tensor>>): Promise<Plan> {
  const { target } = engine.context;
  if (tune) await engine.tune(compile({ target, outputs }));
  return compile({ target, outputs });
}

/** Resolves when everything submitted so far is done. */
export function idle(engine: Engine): Promise<undefined> {
  return engine.context.device.queue.onSubmittedWorkDone();
}

/** Wall-clock seconds until the GPU has done what `submit` gave it. */
export async function timeUntilDone(engine: Engine, submit: () => Promise<unknown>): Promise<number> {
  await idle(engine);
  const started = performance.now();
  await submit();
  await idle(engine);
  return (performance.now() - started) / 1000;
}

/** Outputs of the last run as they lie on the GPU, without running again. */
export async function readOutputs({ context }: Engine, executable: Executable, names: readonly string[]): Promise<Float32Array[]> {
  const memory = await DeviceMemory.allocate(context, 'results', names.map((name) => [name, 4 * sizeOf(executable.plan.outputs.get(name)!.spec.shape)] as const));
  try {
    const encoder = context.device.createCommandEncoder();
    for (const name of names) executable.copyOutput(encoder, name, memory.tensors.get(name)!);
    context.device.queue.submit([encoder.finish()]);
    const values = await memory.read(names);
    return names.map((name) => values.get(name)!);
  } finally {
    memory.dispose();
  }
}
