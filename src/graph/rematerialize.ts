/**
 * Recomputation: a tensor that the forward pass reads at once and the backward much later occupies memory all that time.
 * Where its operation is cheap and its inputs are kept anyway, it is computed a second time just before the later readers,
 * and its memory is free in between. The numbers are the same to the bit.
 */
import { Tensor, type Node } from './tensor.ts';

/** Readers closer than this many nodes keep a tensor rather than compute it again. */
const shortWait = 24;

/**
 * Returns the operation nodes with copies of cheap ones inserted; readers after the longest wait read the copy.
 * @param nodes operation nodes in execution order
 * @param kept tensors that are read from outside at the end
 */
export function rematerialize(nodes: readonly Node[], kept: ReadonlySet<Tensor>): Node[] {
  const readers = new Map<Tensor, number[]>();
  nodes.forEach((node, i) => node.inputs.forEach((t) => readers.set(t, [...(readers.get(t) ?? []), i])));
  const lastRead = (t: Tensor): number => {
    if (t.node.kind !== 'operation' || kept.has(t)) return Infinity;
    const own = readers.get(t)?.at(-1) ?? -1;
    // An alias lives as long as the memory that it is a part of.
    return t.node.operation!.alias ? Math.max(own, lastRead(t.node.inputs[0]!)) : own;
  };

  const replaced = new Map<number, Map<Tensor, Tensor>>();
  const before = new Map<number, Node[]>();
  for (const [at, node] of nodes.entries()) {
    if (!node.operation!.isCheap || node.outputs.some((t) => kept.has(t))) continue;
    const output = node.outputs[0]!;
    const stops = [at, ...(readers.get(output) ?? [])];
    const waits = stops.slice(1).map((stop, i) => stop - stops[i]!);
    const longest = waits.indexOf(Math.max(...waits));
    const first = stops[longest + 1];
    // The first reader needs it at once; later ones can have a copy.
    if (longest < 1 || first === undefined || waits[longest]! < shortWait || !node.inputs.every((t) => lastRead(t) > first)) continue;
    const outputs: Tensor[] = [];
    const copy: Node = { ...node, outputs };
    node.outputs.forEach((t, i) => outputs.push(new Tensor(copy, i, t)));
    before.set(first, [...(before.get(first) ?? []), copy]);
    for (const reader of stops.slice(longest + 1)) replaced.set(reader, (replaced.get(reader) ?? new Map<Tensor, Tensor>()).set(output, outputs[0]!));
  }
  return nodes.flatMap((node, i) => {
    const changes = replaced.get(i);
    const changed = changes ? { ...node, inputs: node.inputs.map((t) => changes.get(t) ?? t) } : node;
    return [...(before.get(i) ?? []), changed];
  });
}
