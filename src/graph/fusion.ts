/**
 * Epilogue fusion: where a pointwise operation is the only reader of another operation's output, and the producer
 * can do that step on the values as it writes them, the two become one kernel and the tensor between them is never
 * stored. Where others read that tensor later (a backward needs it), the kernel may write both. Which steps can be fused
 * is the operations' own business; this pass only checks who reads what.
 */
import type { Target } from '../gpu/target.ts';
import type { Operation } from './operation.ts';
import type { Node, Tensor } from './tensor.ts';

/** A node of the compiled graph: one operation, or a producer with the pointwise steps that it took in. */
export interface Step {
  readonly name: string;
  /** Operation names, joined by `+`. */
  readonly label: string;
  readonly operation: Operation;
  readonly attributes: unknown;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
}

/** Turns operation nodes (in order) into steps; tensors in `kept` are read from outside and stay stored. */
export function fuse(nodes: readonly Node[], kept: ReadonlySet<Tensor>, enabled: boolean, target: Target): Step[] {
  const readers = new Map<Tensor, number>();
  for (const node of nodes) for (const t of node.inputs) readers.set(t, (readers.get(t) ?? 0) + 1);
  const steps = new Map<Tensor, Step>();
  // A fused step runs where its last part stood: never after a change of parameters that its first part came before,
  const open = new Set<Step>();
  // nor after a reader of anything that it gives.
  const read = new Set<Tensor>();

  const order = new Map<Step, number>();

  const tryFuse = (node: Node, keep: boolean): Step | undefined => {
    // The producer that runs last first: to delay the other one would keep what it reads in memory.
    const position = ({ index }: { index: number }): number => order.get(steps.get(node.inputs[index]!)!) ?? -1;
    const candidates = (node.operation!.asEpilogue?.(node) ?? []).sort((a, b) => position(b) - position(a));
    for (const candidate of candidates) {
      const through = node.inputs[candidate.index]!;
      const producer = steps.get(through);
      if (!producer?.operation.withEpilogue || producer.outputs[0] !== through || !open.has(producer)) continue;
      if (producer.outputs.some((t) => read.has(t))) continue;
      if (!keep && (kept.has(through) || readers.get(through) !== 1)) continue;
      const operand = candidate.operandIndex === undefined ? undefined : node.inputs[candidate.operandIndex]!;
      if (operand && producer.outputs.includes(operand)) continue;
      const outputs = [node.outputs[0]!, ...producer.outputs.slice(1), ...(keep ? [through] : [])];
      const inputs = operand ? [...producer.inputs, operand] : producer.inputs;
      // One binding each.
      if (inputs.length + outputs.length > target.maxStorageBuffersPerShaderStage) continue;
      const attributes = producer.operation.withEpilogue(producer, candidate.epilogue, operand, keep);
      if (attributes === undefined) continue;
      steps.delete(through);
      return { name: producer.name, label: `${producer.label}+${node.operation!.name}`, operation: producer.operation, attributes, inputs, outputs };
    }
    return undefined;
  };

  for (const node of nodes) {
    const step = (enabled ? tryFuse(node, false) ?? tryFuse(node, true) : undefined)
      ?? { name: node.name, label: node.operation!.name, operation: node.operation!, attributes: node.attributes, inputs: node.inputs, outputs: node.outputs };
    for (const t of step.inputs) read.add(t);
    // Keyed by the first output; insertion order is execution order, a fused step standing where its last part stood.
    steps.set(step.outputs[0]!, step);
    order.set(step, order.size);
    if (step.operation.mutates) open.clear();
    else open.add(step);
  }
  return [...steps.values()];
}
