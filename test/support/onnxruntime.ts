/**
 * onnxruntime-web's wasm back end, from the packages of bench/: it is a peer in the benchmark and here the second opinion
 * on the ONNX files that are written.
 */
import { createRequire } from 'node:module';

/** What is used of the package's API; its own types are only there once bench/ is installed. */
interface OnnxRuntime {
  readonly env: { readonly wasm: { numThreads?: number }; logLevel?: string };
  readonly InferenceSession: { create(bytes: Uint8Array, options: object): Promise<OnnxSession> };
  readonly Tensor: new (type: 'float32', data: Float32Array, shape: readonly number[]) => unknown;
}

interface OnnxSession {
  readonly inputMetadata: readonly OnnxPort[];
  readonly outputMetadata: readonly OnnxPort[];
  run(feeds: Record<string, unknown>): Promise<Record<string, { data: Float32Array; dims: readonly number[] }>>;
  release(): Promise<void>;
}

export interface OnnxPort {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly (number | string)[];
}

export class OnnxRun {
  private readonly runtime: OnnxRuntime;
  private readonly session: OnnxSession;

  private constructor(runtime: OnnxRuntime, session: OnnxSession) {
    this.runtime = runtime;
    this.session = session;
  }

  static async open(bytes: Uint8Array): Promise<OnnxRun> {
    let runtime: OnnxRuntime;
    try {
      runtime = createRequire(new URL('../../bench/package.json', import.meta.url))('onnxruntime-web') as OnnxRuntime;
    } catch (cause) {
      throw new Error('onnxruntime-web is not installed: npm ci --prefix bench', { cause });
    }
    runtime.env.wasm.numThreads = 1;
    return new OnnxRun(runtime, await runtime.InferenceSession.create(bytes, { executionProviders: ['wasm'] }));
  }

  get inputs(): readonly OnnxPort[] {
    return this.session.inputMetadata;
  }

  get outputs(): readonly OnnxPort[] {
    return this.session.outputMetadata;
  }

  async run(feeds: Record<string, { data: Float32Array; shape: readonly number[] }>): Promise<Record<string, { data: Float32Array; dims: readonly number[] }>> {
    return this.session.run(Object.fromEntries(Object.entries(feeds).map(([name, { data, shape }]) => [name, new this.runtime.Tensor('float32', data, shape)])));
  }

  close(): Promise<void> {
    return this.session.release();
  }
}
