/**
 * Every node of a graph against its reference. The graph runs unfused on the GPU with every tensor kept, and each node's
 * f64 reference is fed the very inputs that the GPU's kernel had, so an error shows at the node that makes it and not at
 * those that inherit it.
 */
import { KernelError, UsageError } from '../errors.ts';
import type { GpuContext } from '../gpu/context.ts';
import { DeviceMemory } from '../gpu/memory.ts';
import { Executable } from './executor.ts';
import { compile } from './plan.ts';
import { dataBytesOf, reachableNodes, sizeOf, type Node, type Tensor, type TensorData } from './tensor.ts';

export interface NodeCheck {
  /** The tensor's name, e.g. `decoder.3.attn.q.linear`; `#1`, `#2`, .. mark further outputs of a node. */
  readonly name: string;
  readonly op: string;
  /** ||gpu - reference|| / ||reference||; infinite for a NaN, or where only the reference is zero. */
  readonly relL2: number;
  readonly maxAbs: number;
}

export interface CheckOptions {
  /** Largest relL2 allowed; without it nothing is refused. */
  readonly tolerance?: number;
  /** Differences up to this are always allowed: sums may cancel to nothing. Default 1e-6. */
  readonly absoluteTolerance?: number;
}

/**
 * Runs the graph once on the GPU and each of its operations on the CPU. For development: every tensor of the graph is
 * kept in memory and read back.
 * @param feeds a value for every input and parameter; a parameter that the graph changes in place has its value from before
 * @returns one entry a computed tensor, largest relL2 first
 * @throws KernelError naming the first node (in order of execution) out of tolerance, where one is given; UsageError for
 *   missing values; AllocationError where the tensors together exceed the adapter
 */
export async function checkAgainstReference(
  context: GpuContext, outputs: readonly Tensor[], feeds: Readonly<Record<string, TensorData>>, { tolerance, absoluteTolerance = 1e-6 }: CheckOptions = {},
): Promise<NodeCheck[]> {
  const nodes = reachableNodes(outputs);
  const values = await runKeepingAll(context, nodes, feeds);
  const checks: NodeCheck[] = [];
  for (const node of nodes) {
    if (node.kind !== 'operation') continue;
    const expected = node.operation!.reference(node.inputs.map((t) => Float64Array.from(values.get(t)!)), node);
    node.outputs.forEach((tensor, i) => {
      const check: NodeCheck = { name: tensor.name, op: node.operation!.name, ...difference(values.get(tensor)!, expected[i]!, rangesOf(node)) };
      if (tolerance !== undefined && !(check.relL2 <= tolerance) && !(check.maxAbs <= absoluteTolerance)) {
        throw new KernelError(check.op, `${check.name} (${check.op}, [${tensor.shape.join(', ')}]) differs from its reference by ${check.relL2.toExponential(2)} relative L2 (largest difference ${check.maxAbs.toExponential(2)}), allowed are ${tolerance}; every node before it agrees.`);
      }
      checks.push(check);
    });
  }
  return checks.sort((a, b) => b.relL2 - a.relL2);
}

async function runKeepingAll(context: GpuContext, nodes: readonly Node[], feeds: Readonly<Record<string, TensorData>>): Promise<Map<Tensor, TensorData>> {
  const values = new Map<Tensor, TensorData>();
  const inputs: Record<string, TensorData> = {};
  const parameters: Node[] = [];
  for (const node of nodes) {
    if (node.kind === 'operation') continue;
    const data = node.kind === 'constant' ? node.data! : feeds[node.name];
    if (!data) throw new UsageError(`No value given for ${node.kind} ${node.name}.`);
    values.set(node.outputs[0]!, data);
    if (node.kind === 'input') inputs[node.name] = data;
    if (node.kind === 'parameter') parameters.push(node);
  }
  const computed = new Map(nodes.filter((n) => n.kind === 'operation').flatMap((n) => n.outputs.map((t) => [`${n.id}.${t.index}`, t] as const)));
  const plan = compile({ target: context.target, outputs: Object.fromEntries(computed), fusion: false });
  let memory: DeviceMemory | undefined;
  let executable: Executable | undefined;
  try {
    if (parameters.length > 0) {
      memory = await DeviceMemory.allocate(context, 'checked parameters', parameters.map((n) => [n.name, dataBytesOf(n.outputs[0]!)] as const));
      for (const { name } of parameters) memory.write(name, feeds[name]!);
    }
    executable = await Executable.prepare(context, plan, memory?.tensors);
    const results = await executable.run(inputs);
    for (const [key, tensor] of computed) values.set(tensor, results[key]!);
  } finally {
    executable?.dispose();
    memory?.dispose();
  }
  return values;
}

/** Which elements of a node's output count: of a concatenation only its parts, the padding between them is undefined. */
function rangesOf({ operation, attributes, inputs }: Node): readonly (readonly [number, number])[] | undefined {
  return operation!.concatenation?.(inputs, attributes).map((offset, i) => [offset, offset + sizeOf(inputs[i]!.shape)] as const);
}

function difference(actual: TensorData, expected: Float64Array, ranges: readonly (readonly [number, number])[] = [[0, expected.length]]): { relL2: number; maxAbs: number } {
  let [error, size, maxAbs] = [0, 0, 0];
  for (const [start, end] of ranges) {
    for (let i = start; i < end; i++) {
      const off = Math.abs(actual[i]! - expected[i]!);
      if (Number.isNaN(off)) return { relL2: Infinity, maxAbs: Infinity };
      error += off * off;
      size += expected[i]! ** 2;
      maxAbs = Math.max(maxAbs, off);
    }
  }
  return { relL2: error === 0 ? 0 : Math.sqrt(error / size), maxAbs };
}
