/**
 * Compiles a graph into a static plan: dead nodes removed, pointwise steps fused into the kernels that feed them,
 * every tensor given its place in a few slabs by lifetime, and the list of dispatches fixed. All of it without a
 * GPU: the plan knows its kernels, FLOP, bytes and peak memory. An executor then replays it, one submit a run.
 */
import { AllocationError, UsageError } from '../errors.ts';
import type { KernelSource } from '../gpu/wgsl.ts';
import type { Target } from '../gpu/target.ts';
import { fuse, type Step } from './fusion.ts';
import { planMemory } from './memory-plan.ts';
import type { Binding, Dispatch, Handle, KernelTuning } from './operation.ts';
import { rematerialize } from './rematerialize.ts';
import { bytesOf, reachableNodes, sizeOf, type Node, type Tensor, type TensorSpec } from './tensor.ts';

/** Where a tensor lies: in a slab of the plan, or in memory that outlives it. */
export type Location =
  | { readonly kind: 'slab'; readonly slab: number; readonly offset: number }
  | { readonly kind: 'parameter'; readonly name: string; readonly offset: number }
  | { readonly kind: 'constant'; readonly index: number; readonly offset: number };

export interface PlannedDispatch {
  readonly node: string;
  readonly kernel: KernelSource;
  readonly bindings: readonly { readonly location: Location; readonly bytes: number; readonly access: 'read' | 'read_write' }[];
  readonly workgroups: readonly [number, number, number];
  readonly flops: number;
  readonly bytes: number;
  readonly tuning?: KernelTuning;
}

export interface PlanReport {
  kernels: number;
  submits: number;
  /** Floating-point operations of one run, a multiply-add counting 2. */
  flops: number;
  /** Bytes that the kernels read and write at least in one run. */
  bytes: number;
  /** Slabs, parameters and constants together: the GPU memory that the plan needs, bytes. */
  peakBytes: number;
  slabBytes: number;
  parameterBytes: number;
  constantBytes: number;
  /** Largest range that any binding covers, bytes. */
  largestBinding: number;
  nodes: { name: string; op: string; shape: number[]; kernels: number; flops: number; bytes: number }[];
}

export interface Plan {
  readonly target: Target;
  readonly dispatches: readonly PlannedDispatch[];
  readonly slabs: readonly number[];
  /** Inputs by name: written before each run. */
  readonly inputs: ReadonlyMap<string, { spec: TensorSpec; location: Location }>;
  readonly parameters: ReadonlyMap<string, TensorSpec>;
  readonly constants: readonly Tensor[];
  readonly outputs: ReadonlyMap<string, { spec: TensorSpec; location: Location }>;
  readonly report: PlanReport;
}

export interface CompileOptions {
  readonly target: Target;
  /** What `run` returns, by name. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Tensors whose computation changes parameters in place and must happen although nobody reads them. */
  readonly effects?: readonly Tensor[];
  /** Off for checking every node against its reference. */
  readonly fusion?: boolean;
  /** Computes what is cheap again rather than keeping it for long: less memory, more work. */
  readonly recompute?: boolean;
}

export function compile(options: CompileOptions): Plan {
  const { target } = options;
  const named = Object.entries(options.outputs);
  const roots = [...named.map(([, t]) => t), ...(options.effects ?? [])];
  if (roots.length === 0) throw new UsageError('A plan needs at least one output or effect.');
  const nodes = reachableNodes(roots);
  checkLeafNames(nodes);
  const kept = new Set(roots);
  const operations = nodes.filter((n) => n.kind === 'operation');
  const steps = fuse(options.recompute ? rematerialize(operations, kept) : operations, kept, options.fusion ?? true, target);

  const storage = new Storage(target.minStorageBufferOffsetAlignment);
  for (const step of steps) storage.add(step);
  const lifetimes = new Lifetimes(storage);
  const planned = steps.map((step, s) => planStep(step, s, storage, lifetimes, target));
  for (const node of nodes) if (node.kind === 'input') lifetimes.use(node.outputs[0]!, -1);
  for (const t of kept) lifetimes.use(t, steps.length);

  const memory = planMemory(lifetimes.list, { alignment: target.minStorageBufferOffsetAlignment, maxSlabBytes: target.maxBufferSize });
  const constants: Tensor[] = nodes.filter((n) => n.kind === 'constant').map((n) => n.outputs[0]!);
  const locate = (place: Place): Location => {
    if (place.kind === 'slab') {
      const at = memory.placements[place.index]!;
      return { kind: 'slab', slab: at.slab, offset: at.offset + place.offset };
    }
    const { node } = place.tensor;
    if (node.kind === 'parameter') return { kind: 'parameter', name: node.name, offset: place.offset };
    return { kind: 'constant', index: constants.indexOf(place.tensor), offset: place.offset };
  };

  const dispatches: PlannedDispatch[] = [];
  for (const { step, items } of planned) {
    for (const { dispatch, places } of items) {
      const bindings = places.map(({ place, bytes, access }) => {
        if (bytes > target.maxStorageBufferBindingSize) {
          throw new AllocationError(
            `${step.name}: a tensor of ${bytes} bytes is larger than the adapter's binding limit of ${target.maxStorageBufferBindingSize}. Use a smaller batch or crop, or more slices.`,
          );
        }
        return { location: locate(place), bytes, access };
      });
      const { kernel, workgroups, flops, bytes, tuning } = dispatch;
      dispatches.push({ node: step.name, kernel, bindings, workgroups, flops, bytes, ...(tuning && { tuning }) });
    }
  }

  const parameters = new Map(nodes.filter((n) => n.kind === 'parameter').map((n) => [n.name, n.outputs[0]! as TensorSpec]));
  const at = (tensor: Tensor) => ({ spec: tensor as TensorSpec, location: locate(lifetimes.place(tensor)) });
  return {
    target, dispatches, slabs: memory.slabs, parameters, constants,
    inputs: new Map(nodes.filter((n) => n.kind === 'input').map((n) => [n.name, at(n.outputs[0]!)])),
    outputs: new Map(named.map(([name, t]) => [name, at(t)])),
    report: makeReport(planned, dispatches, memory.slabs, parameters, constants),
  };
}

function checkLeafNames(nodes: readonly Node[]): void {
  const seen = new Map<string, Node>();
  for (const node of nodes) {
    if (node.kind !== 'input' && node.kind !== 'parameter') continue;
    if (seen.has(node.name)) throw new UsageError(`Two leaves of the graph are called ${node.name}: make it once and pass the tensor on.`);
    seen.set(node.name, node);
  }
}

/** Which tensors share memory: aliases lie in their input, parts of a concatenation in the whole. */
class Storage {
  private readonly parents = new Map<Tensor, { tensor: Tensor; offset: number }>();
  private readonly producers = new Map<Tensor, Step>();
  /** For a concatenation, which inputs lie in place. */
  readonly placed = new Map<Step, boolean[]>();
  readonly aliases = new Set<Step>();
  private readonly alignment: number;

  /** @param alignment of a binding's offset, bytes */
  constructor(alignment: number) {
    this.alignment = alignment;
  }

  add(step: Step): void {
    const { operation, inputs, outputs } = step;
    for (const t of outputs) this.producers.set(t, step);
    const parts = operation.alias?.(inputs, step.attributes).map((elements) => elements * 4);
    if (parts?.every((offset) => offset % this.alignment === 0)) {
      this.aliases.add(step);
      outputs.forEach((t, i) => this.parents.set(t, { tensor: inputs[0]!, offset: parts[i]! }));
    }
    if (!operation.concatenation) return;
    const offsets = operation.concatenation(inputs, step.attributes);
    const whole = outputs[0]!;
    const placedParts: Tensor[] = [];
    this.placed.set(step, inputs.map((t, i) => {
      const root = this.root(t);
      const movable = root.tensor.node.kind === 'operation' && root.offset === 0
        && sizeOf(root.tensor.shape) === sizeOf(t.shape) && !this.isWhole(root.tensor) && (offsets[i]! * 4) % this.alignment === 0
        // A part that is computed from another part would be read and written as one memory in a dispatch.
        && !this.isMadeFrom(root.tensor, whole) && !placedParts.some((part) => this.isMadeFrom(part, root.tensor));
      if (movable) {
        this.parents.set(root.tensor, { tensor: whole, offset: offsets[i]! * 4 });
        placedParts.push(root.tensor);
      }
      return movable;
    }));
  }

  private isMadeFrom(tensor: Tensor, source: Tensor): boolean {
    return this.producers.get(tensor)!.inputs.some((t) => this.root(t).tensor === source);
  }

  private isWhole(tensor: Tensor): boolean {
    return [...this.placed.keys()].some((step) => step.outputs[0] === tensor);
  }

  root(tensor: Tensor): { tensor: Tensor; offset: number } {
    let offset = 0;
    for (let parent = this.parents.get(tensor); parent; parent = this.parents.get(tensor)) {
      offset += parent.offset;
      tensor = parent.tensor;
    }
    return { tensor, offset };
  }
}

/** A tensor's memory before slabs are laid out. */
type Place =
  | { readonly kind: 'slab'; readonly index: number; readonly offset: number }
  | { readonly kind: 'persistent'; readonly tensor: Tensor; readonly offset: number };

class Lifetimes {
  readonly list: { name: string; bytes: number; first: number; last: number; conflicts: Set<number> }[] = [];
  private readonly indices = new Map<Tensor, number>();
  private readonly storage: Storage;

  constructor(storage: Storage) {
    this.storage = storage;
  }

  place(tensor: Tensor): Place {
    const root = this.storage.root(tensor);
    const { kind } = root.tensor.node;
    if (kind === 'parameter' || kind === 'constant') return { kind: 'persistent', tensor: root.tensor, offset: root.offset };
    let index = this.indices.get(root.tensor);
    if (index === undefined) {
      index = this.list.push({ name: root.tensor.name, bytes: bytesOf(root.tensor), first: Infinity, last: -Infinity, conflicts: new Set() }) - 1;
      this.indices.set(root.tensor, index);
    }
    return { kind: 'slab', index, offset: root.offset };
  }

  use(tensor: Tensor, step: number): Place {
    const place = this.place(tensor);
    if (place.kind === 'slab') this.extend(place.index, step);
    return place;
  }

  scratch(name: string, bytes: number, step: number): Place {
    const index = this.list.push({ name, bytes, first: step, last: step, conflicts: new Set() }) - 1;
    return { kind: 'slab', index, offset: 0 };
  }

  private extend(index: number, step: number): void {
    const item = this.list[index]!;
    item.first = Math.min(item.first, step);
    item.last = Math.max(item.last, step);
  }

  /** Everything that a dispatch writes must lie in other slabs than what it reads. */
  separate(step: string, places: readonly { place: Place; access: 'read' | 'read_write' }[]): void {
    for (const written of places) {
      if (written.access !== 'read_write' || written.place.kind !== 'slab') continue;
      for (const read of places) {
        if (read.access !== 'read' || read.place.kind !== 'slab') continue;
        if (read.place.index === written.place.index) throw new UsageError(`${step} reads and writes ${this.list[read.place.index]!.name} in one dispatch.`);
        this.list[written.place.index]!.conflicts.add(read.place.index);
      }
    }
  }
}

interface PlannedStep {
  readonly step: Step;
  readonly items: readonly { dispatch: Dispatch; places: readonly { place: Place; bytes: number; access: 'read' | 'read_write' }[] }[];
}

function planStep(step: Step, index: number, storage: Storage, lifetimes: Lifetimes, target: Target): PlannedStep {
  const scratches: { place: Place; bytes: number }[] = [];
  const bind = (handle: Handle, access: Binding['access']): Binding => ({ handle, access });
  const dispatches = storage.aliases.has(step) ? [] : step.operation.kernels({
    inputs: step.inputs, outputs: step.outputs, attributes: step.attributes, target, name: step.name,
    placed: storage.placed.get(step) ?? step.inputs.map(() => false),
    read: (i) => bind({ kind: 'input', index: i }, 'read'),
    write: (i) => bind({ kind: 'output', index: i }, 'read_write'),
    readBack: (i) => bind({ kind: 'output', index: i }, 'read'),
    update: (i) => {
      if (!step.operation.mutates?.includes(i)) throw new UsageError(`${step.operation.name} changes input ${i} without saying so.`);
      return bind({ kind: 'input', index: i }, 'read_write');
    },
    scratch: (bytes) => {
      const size = Math.max(16, Math.ceil(bytes / 16) * 16);
      const handle: Handle = { kind: 'scratch', index: scratches.push({ place: lifetimes.scratch(`${step.name} (scratch)`, size, index), bytes: size }) - 1 };
      return { read: bind(handle, 'read'), write: bind(handle, 'read_write') };
    },
  });
  for (const t of step.inputs) lifetimes.use(t, index);
  for (const t of step.outputs) lifetimes.use(t, index);
  const items = dispatches.map((dispatch) => {
    checkDispatch(step, dispatch, target);
    const places = dispatch.bindings.map(({ handle, access }) => {
      if (handle.kind === 'scratch') return { ...scratches[handle.index]!, access };
      const tensor = (handle.kind === 'input' ? step.inputs : step.outputs)[handle.index]!;
      return { place: lifetimes.place(tensor), bytes: bytesOf(tensor), access };
    });
    lifetimes.separate(step.name, places);
    return { dispatch, places };
  });
  return { step, items };
}

function checkDispatch(step: Step, dispatch: Dispatch, target: Target): void {
  if (dispatch.bindings.length > target.maxStorageBuffersPerShaderStage) {
    throw new UsageError(`${step.name}: ${dispatch.kernel.label} binds ${dispatch.bindings.length} buffers, the adapter allows ${target.maxStorageBuffersPerShaderStage}.`);
  }
  if (dispatch.workgroups.some((n) => !Number.isInteger(n) || n < 1 || n > target.maxComputeWorkgroupsPerDimension)) {
    throw new UsageError(`${step.name}: ${dispatch.kernel.label} dispatches ${dispatch.workgroups.join(' x ')} workgroups, the adapter allows ${target.maxComputeWorkgroupsPerDimension} a dimension.`);
  }
}

function makeReport(
  planned: readonly PlannedStep[], dispatches: readonly PlannedDispatch[], slabs: readonly number[],
  parameters: ReadonlyMap<string, TensorSpec>, constants: readonly Tensor[],
): PlanReport {
  const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
  const slabBytes = sum(slabs);
  const parameterBytes = sum([...parameters.values()].map(bytesOf));
  const constantBytes = sum(constants.map(bytesOf));
  return {
    kernels: dispatches.length,
    submits: 1,
    flops: sum(dispatches.map((d) => d.flops)),
    bytes: sum(dispatches.map((d) => d.bytes)),
    peakBytes: slabBytes + parameterBytes + constantBytes,
    slabBytes, parameterBytes, constantBytes,
    largestBinding: Math.max(0, ...dispatches.flatMap((d) => d.bindings.map((b) => b.bytes))),
    nodes: planned.filter(({ items }) => items.length > 0).map(({ step, items }) => ({
      name: step.name,
      op: step.label,
      shape: [...step.outputs[0]!.shape],
      kernels: items.length,
      flops: sum(items.map((i) => i.dispatch.flops)),
      bytes: sum(items.map((i) => i.dispatch.bytes)),
    })),
  };
}
