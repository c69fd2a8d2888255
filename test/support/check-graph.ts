/** A graph on the adapter of the tests against the f64 reference, planned as for another family of adapters where asked. */
import type { Target } from '../../src/gpu/target.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { expectClose } from './golden.ts';
import { testContext } from './gpu.ts';

export type Feeds = Record<string, Float32Array>;

/** Runs the graph on the adapter, planned for `family`, and holds every output against the f64 reference. */
export async function check(outputs: Record<string, Tensor>, feeds: Feeds, tolerance: number, family?: Target['family']): Promise<void> {
  const context = await testContext();
  const plan = compile({ target: { ...context.target, ...(family ? { family } : {}) }, outputs });
  const executable = await Executable.prepare(context, plan);
  const leaves = new Map([...plan.inputs.keys()].map((name) => [name, feeds[name]!]));
  const actual = await executable.run(Object.fromEntries(leaves)).finally(() => executable.dispose());
  const expected = interpret(Object.values(outputs), leaves);
  Object.keys(outputs).forEach((name, i) => expectClose(actual[name]!, expected[i]!, { relL2: tolerance, name }));
}
