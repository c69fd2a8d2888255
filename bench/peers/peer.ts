/**
 * What is raced against: a peer gets a problem ready on its own device, then runs it as often as it is told. Values come
 * in two variants whose results differ, so that a peer can't pass with what it computed before.
 */
export const variants = [0, 1] as const;
export type Variant = (typeof variants)[number];

/** C = A B: A [rows, depth], B [depth, columns], row-major. */
export interface GemmProblem {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly a: readonly Float32Array[];
  readonly b: Float32Array;
}

/** The whole model on one image; outputs `map`, then `score`. */
export interface InferenceProblem {
  readonly onnx: Uint8Array;
  /** Normalised, [3, size, size]. */
  readonly images: readonly Float32Array[];
  readonly size: number;
}

/** One block of the INP-guided decoder, forward and backward. */
export interface BlockProblem {
  readonly tokens: number;
  readonly width: number;
  readonly numHeads: number;
  readonly numPrototypes: number;
  readonly hidden: number;
  readonly epsilon: number;
  /** Tokens y [tokens, width] of each variant. */
  readonly y: readonly Float32Array[];
  /** [numPrototypes, width] */
  readonly prototypes: Float32Array;
  /** The gradient that comes in at the output, [tokens, width]. */
  readonly gradient: Float32Array;
  /** Trained tensors; linear weights are [out, in]. */
  readonly parameters: readonly { readonly name: string; readonly shape: readonly number[]; readonly data: Float32Array }[];
}

export interface Racer {
  /** Runs `count` times; resolves when the GPU has done them. */
  run(variant: Variant, count: number): Promise<void>;
  /** The outputs of the last run. For a block: the output, then the gradients by y, prototypes and each parameter. */
  read(): Promise<Float32Array[]>;
  dispose(): void;
}

export interface Peer {
  readonly name: string;
  gemm?(problem: GemmProblem): Promise<Racer>;
  inference?(problem: InferenceProblem): Promise<Racer>;
  block?(problem: BlockProblem): Promise<Racer>;
}
