/**
 * Runs a graph on the CPU with every operation's f64 reference: the yardstick for kernels, and what finite
 * differences are taken of.
 */
import { UsageError } from '../errors.ts';
import { reachableNodes, sizeOf, type Tensor } from './tensor.ts';

/** Values of `outputs`, given the inputs' and parameters' values by name. */
export function interpret(outputs: readonly Tensor[], feeds: ReadonlyMap<string, ArrayLike<number>>): Float64Array[] {
  const values = new Map<Tensor, Float64Array>();
  for (const node of reachableNodes(outputs)) {
    if (node.kind === 'operation') {
      const results = node.operation!.reference(node.inputs.map((t) => values.get(t)!), node);
      node.outputs.forEach((t, i) => {
        if (results[i]!.length !== sizeOf(t.shape)) {
          throw new UsageError(`The reference of ${node.name} returned ${results[i]!.length} elements for [${t.shape.join(', ')}].`);
        }
        values.set(t, results[i]!);
      });
    } else {
      const data = node.kind === 'constant' ? node.data! : feeds.get(node.name);
      if (!data) throw new UsageError(`No value given for ${node.kind} ${node.name}.`);
      const tensor = node.outputs[0]!;
      if (data.length !== sizeOf(tensor.shape)) {
        throw new UsageError(`${node.kind} ${node.name} needs ${sizeOf(tensor.shape)} values, got ${data.length}.`);
      }
      values.set(tensor, Float64Array.from(data));
    }
  }
  return outputs.map((t) => values.get(t)!);
}
