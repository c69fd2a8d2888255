/**
 * Symbolic tensors. A graph is nothing but the nodes reachable from its outputs: building it touches no GPU, every
 * shape is static, and so shapes, FLOP, bytes and peak memory are known before anything runs. Nodes are numbered
 * in creation order, which is a topological order and the order of execution.
 */
import { UsageError } from '../errors.ts';
import type { Operation } from './operation.ts';

/** f16 is a storage type: kernels compute in f32 (matrix units may take f16). Its data are bit patterns. */
export type DataType = 'f32' | 'u32' | 'i32' | 'f16';
export type Shape = readonly number[];

/** Shape and element type: all that a shape rule or a kernel needs to know of a tensor. Row-major. */
export interface TensorSpec {
  readonly shape: Shape;
  readonly dtype: DataType;
}

export type TensorData = Float32Array | Uint32Array | Int32Array | Uint16Array;

/**
 * What a node is. `input` is written before each run; `parameter` is persistent memory bound by name when a plan is
 * prepared (weights, optimiser state); `constant` is uploaded once; `operation` computes.
 */
export type NodeKind = 'input' | 'parameter' | 'constant' | 'operation';

export interface Node<A = any> {
  readonly id: number;
  readonly kind: NodeKind;
  /** Scoped name, e.g. `decoder.3.attn.q`; unique for leaves. */
  readonly name: string;
  readonly operation: Operation<A> | undefined;
  readonly attributes: A;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** A constant's data. */
  readonly data?: TensorData;
}

export class Tensor implements TensorSpec {
  readonly shape: Shape;
  readonly dtype: DataType;
  readonly node: Node;
  /** Which of the node's outputs this is. */
  readonly index: number;

  constructor(node: Node, index: number, spec: TensorSpec) {
    this.node = node;
    this.index = index;
    this.shape = spec.shape;
    this.dtype = spec.dtype;
  }

  get name(): string {
    return this.index === 0 ? this.node.name : `${this.node.name}#${this.index}`;
  }
}

export function sizeOf(shape: Shape): number {
  return shape.reduce((product, n) => product * n, 1);
}

/** Bytes of a tensor's elements. */
export function dataBytesOf({ shape, dtype }: TensorSpec): number {
  return sizeOf(shape) * (dtype === 'f16' ? 2 : 4);
}

/** Bytes of a tensor, rounded up to a whole vec4 so that vector loads never cross its end. */
export function bytesOf(spec: TensorSpec): number {
  return Math.ceil(dataBytesOf(spec) / 16) * 16;
}

let nextId = 0;
const scopes: string[] = [];

/** Names made inside `body` are prefixed with `name.`. */
export function scope<T>(name: string, body: () => T): T {
  scopes.push(name);
  try {
    return body();
  } finally {
    scopes.pop();
  }
}

function scoped(name: string): string {
  return scopes.length > 0 ? `${scopes.join('.')}.${name}` : name;
}

function checkShape(shape: Shape, what: string): void {
  if (!shape.every((n) => Number.isInteger(n) && n > 0)) {
    throw new UsageError(`${what}: every dimension must be a positive integer, got [${shape.join(', ')}].`);
  }
}

function makeNode(fields: Omit<Node, 'id' | 'outputs'>, specs: readonly TensorSpec[]): Node {
  for (const spec of specs) checkShape(spec.shape, fields.name);
  const outputs: Tensor[] = [];
  const node: Node = { ...fields, id: nextId++, outputs };
  specs.forEach((spec, i) => outputs.push(new Tensor(node, i, spec)));
  return node;
}

const leaf = { operation: undefined, attributes: undefined, inputs: [] };

/** Data that is written before every run. */
export function input(name: string, shape: Shape, dtype: DataType = 'f32'): Tensor {
  return makeNode({ ...leaf, kind: 'input', name }, [{ shape, dtype }]).outputs[0]!;
}

/** Persistent memory, bound by name when the plan is prepared. */
export function parameter(name: string, shape: Shape, dtype: DataType = 'f32'): Tensor {
  return makeNode({ ...leaf, kind: 'parameter', name }, [{ shape, dtype }]).outputs[0]!;
}

/** Data known when the graph is built. */
export function constant(name: string, shape: Shape, data: TensorData): Tensor {
  if (data.length !== sizeOf(shape)) {
    throw new UsageError(`constant ${name}: [${shape.join(', ')}] holds ${sizeOf(shape)} elements, got ${data.length}.`);
  }
  const dtype: DataType = data instanceof Float32Array ? 'f32' : data instanceof Uint32Array ? 'u32' : data instanceof Int32Array ? 'i32' : 'f16';
  return makeNode({ ...leaf, kind: 'constant', name: scoped(name), data }, [{ shape, dtype }]).outputs[0]!;
}

/** Adds an operation to the graph; its shape rule checks the inputs. */
export function apply<A>(operation: Operation<A>, inputs: readonly Tensor[], attributes: A, name?: string): readonly Tensor[] {
  const specs = operation.outputs(inputs, attributes);
  return makeNode(
    { kind: 'operation', name: scoped(name ?? operation.name), operation, attributes, inputs: [...inputs] },
    specs,
  ).outputs;
}

/** All nodes that the outputs depend on, in execution order. */
export function reachableNodes(outputs: Iterable<Tensor | Node>): Node[] {
  const seen = new Set<Node>();
  const stack = [...outputs].map((x) => (x instanceof Tensor ? x.node : x));
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (seen.has(node)) continue;
    seen.add(node);
    for (const t of node.inputs) stack.push(t.node);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}
