/**
 * The leaves of a graph that stand for persistent tensors: each made once, by name, with its shape from a table. Some of
 * the decoder blocks' tensors lie in stacks, a row a block, because the graph works on all blocks at once with them.
 */
import { UsageError } from '../errors.ts';
import { roundUp } from '../gpu/target.ts';
import type { MemoryItem } from '../gpu/memory.ts';
import { dataBytesOf, parameter, sizeOf, type DataType, type Shape, type Tensor } from '../graph/tensor.ts';
import { segmentAlignment, unstack } from '../ops/index.ts';
import { hasPrototypes, type DetectorConfig } from './config.ts';

/** Tensors of one shape, one after another at equal distances: [members, stride], each row beginning with a member. */
export interface ParameterStack {
  readonly name: string;
  readonly members: readonly string[];
  /** Elements. */
  readonly stride: number;
}

/** How the weights of linear layers are stored on the GPU; everything is computed in f32. */
export type Precision = 'f32' | 'f16';

/** Matrices are what fills memory and its bandwidth. Those in stacks are small work, and stay f32. */
export function dtypeAt(precision: Precision, name: string): DataType {
  const isMatrix = /(^|\.)(qkv|proj|fc1|fc2|q|kv)\.weight$|^memory\./.test(name) && !/^decoder\..*\.attn\.(kv|proj)\./.test(name);
  return precision === 'f16' && isMatrix ? 'f16' : 'f32';
}

export class ParameterLeaves {
  private readonly shapes: ReadonlyMap<string, Shape>;
  private readonly prefix: string;
  private readonly stacks: readonly ParameterStack[];
  private readonly precision: Precision;
  private readonly leaves = new Map<string, Tensor>();
  private readonly rows = new Map<string, Tensor>();

  /** @param prefix what the leaves' names start with, so that two tables can't collide in one graph */
  constructor(shapes: ReadonlyMap<string, Shape>, prefix: string, { stacks = [], precision = 'f32' }: { stacks?: readonly ParameterStack[]; precision?: Precision } = {}) {
    this.shapes = shapes;
    this.prefix = prefix;
    this.stacks = stacks;
    this.precision = precision;
  }

  /** The tensor of this name: a leaf, or a row of a stack. */
  get(name: string): Tensor {
    const stack = this.stacks.find(({ members }) => members.includes(name));
    if (!stack) return this.leaf(name, this.shapeOf(name));
    if (!this.rows.has(name)) unstack(this.stack(stack), this.shapeOf(name)).forEach((row, i) => this.rows.set(stack.members[i]!, row));
    return this.rows.get(name)!;
  }

  /** Every leaf: the stacks and the tensors that are in none. */
  all(): Tensor[] {
    const stacked = new Set(this.stacks.flatMap(({ members }) => members));
    return [...this.stacks.map((stack) => this.stack(stack)), ...[...this.shapes.keys()].filter((name) => !stacked.has(name)).map((name) => this.get(name))];
  }

  /** The leaf that is a stack, [members, stride]. */
  stack({ name, members, stride }: ParameterStack): Tensor {
    return this.leaf(name, [members.length, stride]);
  }

  /** Tensors by name, given one for each leaf: those of a stack are its rows. */
  byName(ofLeaf: (leaf: Tensor) => Tensor): Map<string, Tensor> {
    const stacked = new Map(this.stacks.flatMap((stack) => {
      const rows = unstack(ofLeaf(this.stack(stack)), this.shapeOf(stack.members[0]!));
      return stack.members.map((name, i) => [name, rows[i]!] as const);
    }));
    return new Map([...this.shapes.keys()].map((name) => [name, stacked.get(name) ?? ofLeaf(this.get(name))]));
  }

  private shapeOf(name: string): Shape {
    const shape = this.shapes.get(name);
    if (!shape) throw new UsageError(`The model has no parameter ${name}.`);
    return shape;
  }

  private leaf(name: string, shape: Shape): Tensor {
    let leaf = this.leaves.get(name);
    if (!leaf) {
      leaf = parameter(`${this.prefix}${name}`, shape, dtypeAt(this.precision, name));
      this.leaves.set(name, leaf);
    }
    return leaf;
  }
}

export const trainablePrefix = 'trainable.';

/**
 * The trained tensors and their shapes, named and ordered as in the reference's checkpoints: `prototype_token`,
 * `aggregation.0.*` (the INP extractor), `bottleneck.0.*`, `decoder.N.*`. Linear weights are [out, in]. Behind them the
 * segmentation head's, where there is one. Of a decoder without prototypes, what only they need is missing; a memory is
 * `memory.G.S` [rows, C], slice S of the features of group G.
 */
export function trainableShapes(config: DetectorConfig): Map<string, Shape> {
  const { width: c, numHeads } = config.architecture;
  const hidden = c * config.mlpRatio;
  const shapes = new Map<string, Shape>();
  if (config.method === 'memory') {
    const slices = memorySlices(config);
    config.encoderGroups.forEach((_, g) => slices.forEach((rows, s) => shapes.set(`memory.${g}.${s}`, [rows, c])));
    return shapes;
  }
  const prototypes = hasPrototypes(config);
  if (prototypes) shapes.set('prototype_token', [config.numPrototypes, c]);
  const linear = (name: string, out: number, inputs: number) => {
    shapes.set(`${name}.weight`, [out, inputs]);
    shapes.set(`${name}.bias`, [out]);
  };
  const mlp = (name: string) => {
    linear(`${name}.fc1`, hidden, c);
    linear(`${name}.fc2`, c, hidden);
  };
  const norm = (name: string) => {
    shapes.set(`${name}.weight`, [c]);
    shapes.set(`${name}.bias`, [c]);
  };
  const block = (name: string, learnScale: boolean) => {
    norm(`${name}.norm1`);
    if (learnScale) shapes.set(`${name}.attn.learn_scale`, [numHeads, 1, 1]);
    linear(`${name}.attn.q`, c, c);
    linear(`${name}.attn.kv`, 2 * c, c);
    linear(`${name}.attn.proj`, c, c);
    norm(`${name}.norm2`);
    mlp(`${name}.mlp`);
  };
  const extractorDepth = prototypes ? config.extractorDepth : 0;
  for (let i = 0; i < extractorDepth; i++) block(`aggregation.${i}`, false);
  mlp('bottleneck.0');
  for (let i = 0; i < config.decoderDepth; i++) block(`decoder.${i}`, prototypes);
  return new Map([...shapes, ...(config.segmentationHead ? headShapes(config) : [])]);
}

/**
 * The segmentation head's tensors, `head.0` to `head.2`. Weights are [in, k, k, out], of transposed convolutions: the last,
 * of stride 1, is a plain 3x3 convolution with its kernel turned half around. C/3 and C/12 channels in whole vectors of 4.
 */
export function headShapes({ architecture: { width } }: DetectorConfig): Map<string, Shape> {
  const inFours = (channels: number): number => Math.max(4, Math.floor(channels / 4) * 4);
  const channels = [width, inFours(width / 3), inFours(width / 12), 1];
  return new Map(headLayers.flatMap(({ kernel }, i): [string, Shape][] => [
    [`head.${i}.weight`, [channels[i]!, kernel, kernel, channels[i + 1]!]], [`head.${i}.bias`, [channels[i + 1]!]],
  ]));
}

/** Geometry of the head's transposed convolutions. */
export const headLayers = [{ kernel: 4, stride: 2, padding: 1 }, { kernel: 4, stride: 2, padding: 1 }, { kernel: 3, stride: 1, padding: 1 }] as const;

/** Rows of each slice of a memory: every binding that WebGPU guarantees holds one. */
export function memorySlices({ memoryRows, architecture }: DetectorConfig): number[] {
  const most = Math.floor(longestBinding / (4 * architecture.width));
  return Array.from({ length: Math.ceil(memoryRows / most) }, (_, i) => Math.min(most, memoryRows - i * most));
}

/** What the prototypes' side of a decoder block needs: the parts of a block that are stacked. */
const stackedKinds = ['norm1.weight', 'norm1.bias', 'attn.learn_scale', 'attn.kv.weight', 'attn.kv.bias', 'attn.proj.weight', 'attn.proj.bias'] as const;
export type StackedKind = (typeof stackedKinds)[number];

/** The binding that every WebGPU implementation allows: neither a stack nor a slice of a memory may be longer. */
export const longestBinding = 128 * 1024 * 1024;

/** Consecutive decoder blocks whose prototypes' sides are computed together, with the stacks of their tensors. */
export interface DecoderRun {
  readonly blocks: readonly number[];
  readonly stacks: Readonly<Record<StackedKind, ParameterStack>>;
}

/** All blocks in one run, unless a stack of their tensors would be too long to be bound. None where there are no prototypes. */
export function decoderRuns(config: DetectorConfig): DecoderRun[] {
  if (!hasPrototypes(config)) return [];
  const shapes = trainableShapes(config);
  const stride = (kind: StackedKind): number => roundUp(sizeOf(shapes.get(`decoder.0.${kind}`)!), segmentAlignment);
  const longest = Math.max(...stackedKinds.map(stride)) * 4;
  const count = Math.ceil(config.decoderDepth / Math.max(1, Math.floor(longestBinding / longest)));
  return Array.from({ length: count }, (_, r) => {
    const [first, end] = [r, r + 1].map((n) => Math.floor((n * config.decoderDepth) / count)) as [number, number];
    const blocks = Array.from({ length: end - first }, (_, i) => first + i);
    const stackOf = (kind: StackedKind): ParameterStack => ({
      name: `decoder.${first}-${end - 1}.${kind}`, members: blocks.map((i) => `decoder.${i}.${kind}`), stride: stride(kind),
    });
    return { blocks, stacks: Object.fromEntries(stackedKinds.map((kind) => [kind, stackOf(kind)])) as Record<StackedKind, ParameterStack> };
  });
}

const trainableStacks = (config: DetectorConfig): ParameterStack[] => decoderRuns(config).flatMap(({ stacks }) => Object.values(stacks));

/** The leaves of a graph for the trained tensors; f16 is for inspection alone. */
export function trainableLeaves(config: DetectorConfig, precision?: Precision): ParameterLeaves {
  return new ParameterLeaves(trainableShapes(config), trainablePrefix, { stacks: trainableStacks(config), ...(precision && { precision }) });
}

/** The leaves of a graph for the segmentation head alone. */
export function headLeaves(config: DetectorConfig): ParameterLeaves {
  return new ParameterLeaves(headShapes(config), trainablePrefix);
}

/** How the segmentation head's tensors lie in memory. */
export function headItems(config: DetectorConfig): MemoryItem[] {
  return [...headShapes(config)].map(([name, shape]) => [trainablePrefix + name, dataBytesOf({ shape, dtype: 'f32' })]);
}

/** How the trained tensors lie in memory: in the order of their names, a stack where its first member would be. */
export function trainableItems(config: DetectorConfig, precision: Precision = 'f32'): MemoryItem[] {
  const shapes = trainableShapes(config);
  const stacks = trainableStacks(config);
  const item = (name: string): [string, number] => [trainablePrefix + name, dataBytesOf({ shape: shapes.get(name)!, dtype: dtypeAt(precision, name) })];
  return [...shapes.keys()].flatMap((name): MemoryItem[] => {
    const stack = stacks.find(({ members }) => members.includes(name));
    if (!stack) return [item(name)];
    return stack.members[0] === name ? [[trainablePrefix + stack.name, stack.members.length * stack.stride * 4, stack.members.map(item)]] : [];
  });
}
