/** One row of the table that test/ops/operations.test.ts walks: an operation (or a family), its shapes, its tolerance. */
import type { Operation } from '../../src/graph/operation.ts';
import type { Tensor, TensorData } from '../../src/graph/tensor.ts';
import type { Random } from '../../src/data/random.ts';

export interface OperationCase<S = any> {
  readonly name: string;
  /** The operations that this row exercises; every exported operation must be in at least one row. */
  readonly operations: readonly Operation[];
  /** At least five, none of them kind to a tile. */
  readonly shapes: readonly S[];
  /** Builds the graph from `input()` leaves (and constants); the outputs are compared on the GPU and on the CPU. */
  build(shape: S): Record<string, Tensor>;
  /** Values by input name; those not given are drawn from N(0, 1) (f32) by the harness. */
  feeds?(shape: S, random: Random): Record<string, TensorData>;
  /** Names of the inputs whose gradients are checked against finite differences. */
  readonly differentiate?: readonly string[];
  /** Names of the outputs that gradients flow from; default all f32 outputs. */
  readonly gradientOutputs?: readonly string[];
  /** Relative L2 of the forward comparison; default 2e-6. Say why where it is larger. */
  readonly tolerance?: number;
  /** Relative to the rms of the gradient; default 1e-4. */
  readonly gradientTolerance?: number;
}
