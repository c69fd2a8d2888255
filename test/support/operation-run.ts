/** An operation's row against the f64 reference, once, on a given device: the same in Node and in a page. */
import { Random, seedFromText } from '../../src/data/random.ts';
import type { GpuContext } from '../../src/gpu/context.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { reachableNodes, sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import type { OperationCase } from './operation-case.ts';

export const forwardTolerance = 2e-6;

export function leavesOf(outputs: readonly Tensor[]): Tensor[] {
  return reachableNodes(outputs).filter((n) => n.kind === 'input').map((n) => n.outputs[0]!);
}

export function makeFeeds(c: OperationCase, shape: unknown, outputs: readonly Tensor[], random: Random): Record<string, TensorData> {
  const given = c.feeds?.(shape, random) ?? {};
  const feeds: Record<string, TensorData> = {};
  for (const leaf of leavesOf(outputs)) {
    feeds[leaf.node.name] = given[leaf.node.name] ?? Float32Array.from({ length: sizeOf(leaf.shape) }, () => random.normal());
  }
  return feeds;
}

export async function runOnce(context: GpuContext, outputs: Record<string, Tensor>, feeds: Record<string, TensorData>): Promise<Record<string, TensorData>> {
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs }));
  try {
    return await executable.run(feeds);
  } finally {
    executable.dispose();
  }
}

/** ||actual - expected|| / ||expected||; infinite as soon as a value is not finite. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    if (!Number.isFinite(actual[i]!)) return Infinity;
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / (norm || 1));
}

/** Relative L2 error of each output of a row on one of its shapes. */
export async function forwardErrors(context: GpuContext, c: OperationCase, shape: unknown): Promise<Record<string, number>> {
  const outputs = c.build(shape);
  const feeds = makeFeeds(c, shape, Object.values(outputs), new Random(seedFromText(`${c.name} ${JSON.stringify(shape)}`)));
  const actual = await runOnce(context, outputs, feeds);
  const expected = interpret(Object.values(outputs), new Map(Object.entries(feeds)));
  return Object.fromEntries(Object.keys(outputs).map((name, i) => [name, relativeError(actual[name]!, expected[i]!)]));
}
