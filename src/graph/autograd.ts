/**
 * Reverse-mode differentiation on the graph: walks the nodes that lie between the loss and the wanted tensors
 * backwards, asks each operation for its gradient nodes, and sums what meets at a tensor. The gradients are
 * ordinary nodes, so forward, backward and optimiser end up in one plan.
 */
import { UsageError } from '../errors.ts';
import { reachableNodes, type Node, type Tensor } from './tensor.ts';

/** Sum of two tensors of one shape, as a graph node: the one operation that differentiation itself needs. */
export type Add = (a: Tensor, b: Tensor) => Tensor;

/**
 * Gradients of sum_i <seed.gradient, seed.tensor> by each tensor of `wanted`.
 * @returns one tensor for each of `wanted`, of the same shape. Tensors that no seed depends on are an error.
 */
export function differentiate(seeds: readonly { tensor: Tensor; gradient: Tensor }[], wanted: readonly Tensor[], add: Add): Tensor[] {
  const nodes = reachableNodes(seeds.map((s) => s.tensor));
  const leadsToWanted = new Set<Tensor>(wanted);
  for (const node of nodes) {
    if (node.inputs.some((t) => leadsToWanted.has(t))) for (const t of node.outputs) leadsToWanted.add(t);
  }

  const gradients = new Map<Tensor, Tensor>();
  const accumulate = (tensor: Tensor, gradient: Tensor): void => {
    if (gradient.shape.join() !== tensor.shape.join()) {
      throw new UsageError(`The gradient of ${tensor.name} has shape [${gradient.shape.join(', ')}], expected [${tensor.shape.join(', ')}].`);
    }
    const sum = gradients.get(tensor);
    gradients.set(tensor, sum ? add(sum, gradient) : gradient);
  };
  for (const { tensor, gradient } of seeds) if (leadsToWanted.has(tensor)) accumulate(tensor, gradient);

  for (const node of nodes.reverse()) {
    if (node.kind !== 'operation' || !node.inputs.some((t) => leadsToWanted.has(t))) continue;
    const outputGradients = node.outputs.map((t) => gradients.get(t));
    if (outputGradients.every((g) => g === undefined)) continue;
    const inputGradients = gradientOf(node, outputGradients, node.inputs.map((t) => leadsToWanted.has(t)));
    node.inputs.forEach((t, i) => {
      const gradient = inputGradients[i];
      if (gradient && leadsToWanted.has(t)) accumulate(t, gradient);
    });
  }

  return wanted.map((t) => {
    const gradient = gradients.get(t);
    if (!gradient) throw new UsageError(`The loss does not depend on ${t.name}.`);
    return gradient;
  });
}

function gradientOf(node: Node, outputGradients: readonly (Tensor | undefined)[], needs: readonly boolean[]): readonly (Tensor | undefined)[] {
  const operation = node.operation!;
  if (!operation.gradient) throw new UsageError(`Operation ${operation.name} (${node.name}) has no gradient.`);
  return operation.gradient({
    node, inputs: node.inputs, outputs: node.outputs, attributes: node.attributes, outputGradients, needs,
  });
}
