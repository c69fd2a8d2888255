/**
 * An operation is one unit: its shape rule, its kernels, its gradient as graph nodes and a plain f64 reference on
 * the CPU. The graph room knows operations only through this interface, never by name.
 */
import type { KernelSource } from '../gpu/wgsl.ts';
import type { Target } from '../gpu/target.ts';
import type { Node, Tensor, TensorSpec } from './tensor.ts';

/** Memory that a dispatch binds: an input or output of the node, or scratch memory that lives for this node alone. */
export type Handle =
  | { readonly kind: 'input'; readonly index: number }
  | { readonly kind: 'output'; readonly index: number }
  | { readonly kind: 'scratch'; readonly index: number };

export interface Binding {
  readonly handle: Handle;
  readonly access: 'read' | 'read_write';
}

/** One compute dispatch. Bindings are in the order of the kernel's `@binding(i)` in group 0. */
export interface Dispatch {
  readonly kernel: KernelSource;
  readonly bindings: readonly Binding[];
  readonly workgroups: readonly [number, number, number];
  /** Floating-point operations, a multiply-add counting 2. */
  readonly flops: number;
  /** Bytes that must move at least: each tensor that is read or written, once. */
  readonly bytes: number;
  /** Other kernels that do the same to the bit with the same bindings, among them this one: which is fastest depends on the device. */
  readonly tuning?: KernelTuning;
}

export interface KernelTuning {
  /** What the choice depends on besides the device: the kind of kernel and its sizes. */
  readonly key: string;
  variants(): readonly { readonly name: string; readonly kernel: KernelSource; readonly workgroups: readonly [number, number, number] }[];
}

/** What `kernels` gets: the specs, and handles to bind. */
export interface KernelContext<A> {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly attributes: A;
  readonly target: Target;
  /** Name of the node, for labels. */
  readonly name: string;
  /** For an operation with `concatenation`: inputs whose memory already is a part of the output. */
  readonly placed: readonly boolean[];
  read(index: number): Binding;
  write(index: number): Binding;
  /** An output that an earlier dispatch of this node wrote, to be read by a later one. */
  readBack(index: number): Binding;
  /** An input that is changed in place; the operation lists it in `mutates`. */
  update(index: number): Binding;
  /** Scratch memory of `bytes` bytes, to be bound with either access. */
  scratch(bytes: number): { read: Binding; write: Binding };
}

export interface GradientContext<A> {
  readonly node: Node<A>;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly attributes: A;
  /** Gradient of the loss by each output; undefined where nothing flows. */
  readonly outputGradients: readonly (Tensor | undefined)[];
  /** Which inputs' gradients anyone wants. */
  readonly needs: readonly boolean[];
}

export type ReferenceArray = Float64Array;

/**
 * A pointwise step that a producing kernel can do on a value before it writes it. `operand` tells how the second
 * value is indexed in the producer's [rows, columns] output: by column, by element, or not at all.
 */
export interface Epilogue {
  readonly name: string;
  readonly operand: 'none' | 'column' | 'element';
  /** WGSL helper functions that the expression calls, each once. */
  readonly functions?: string;
  /** The WGSL expression; `value` and `operand` are expressions of type f32, or vec4f where `vector`. */
  expression(value: string, operand: string, vector: boolean): string;
  /** Floating-point operations for one element. */
  readonly flops: number;
}

export interface Operation<A = any> {
  readonly name: string;
  /** Shape rule: the output specs, or a UsageError that names what does not fit. */
  outputs(inputs: readonly TensorSpec[], attributes: A): TensorSpec[];
  /** The dispatches. */
  kernels(context: KernelContext<A>): Dispatch[];
  /** Gradients for the inputs (undefined where none is needed or none exists), as graph nodes. */
  gradient?(context: GradientContext<A>): (Tensor | undefined)[];
  /** f64 reference: one array an output. */
  reference(inputs: readonly ReferenceArray[], node: { inputs: readonly TensorSpec[]; outputs: readonly TensorSpec[]; attributes: A }): ReferenceArray[];

  /** Costs little against a matrix product: may be computed again in the backward instead of being kept. */
  readonly isCheap?: boolean;
  /** The outputs are the first input's memory from these elements on, under other shapes, where that can be bound there; elsewhere the kernels run. */
  alias?(inputs: readonly TensorSpec[], attributes: A): readonly number[];
  /** The single output is made of all inputs at these element offsets; inputs are placed there when they can be. */
  concatenation?(inputs: readonly TensorSpec[], attributes: A): readonly number[];
  /** Inputs (parameters) that the kernels change in place. */
  readonly mutates?: readonly number[];

  /** The ways in which this operation can be done on the values of its input `index` as they are written. */
  asEpilogue?(node: { inputs: readonly TensorSpec[]; outputs: readonly TensorSpec[]; attributes: A }): { index: number; operandIndex?: number; epilogue: Epilogue }[];
  /**
   * Takes a further epilogue into output 0: the new attributes (its operand, if any, becomes the last input); undefined to
   * decline. Where `keep`, the value before it is stored as well, as the last output.
   */
  withEpilogue?(node: { inputs: readonly TensorSpec[]; outputs: readonly TensorSpec[]; attributes: A }, epilogue: Epilogue, operand: TensorSpec | undefined, keep: boolean): A | undefined;
}
