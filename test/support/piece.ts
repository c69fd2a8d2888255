/** One file of golden/pieces: an operation on the reference's inputs, its outputs and its gradients. */
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import * as ops from '../../src/ops/index.ts';
import { expectClose, float32, goldenJson, goldenTensors, type Closeness } from './golden.ts';
import { testContext } from './gpu.ts';

export type Shapes = Record<string, Record<string, number[]>>;

/** Runs a piece on its golden inputs: the outputs by name, and `grad.*` for the inputs that the set has gradients of. */
export async function runPiece(
  piece: string, build: (inputs: Record<string, Tensor>) => { outputs: Record<string, Tensor>; from: string }, forward = { relL2: 1e-5, maxOfRms: 1e-4 } as Omit<Closeness, 'name'>,
) {
  const shapes = goldenJson<Shapes>('pieces/index.json')[piece]!;
  const golden = goldenTensors(`pieces/${piece}.safetensors`);
  const inputs = Object.fromEntries(Object.keys(shapes).filter((k) => k.startsWith('in.')).map((k) => [k.slice(3), input(k, shapes[k]!)]));
  const { outputs, from } = build(inputs);
  const source = outputs[from]!;
  const wanted = Object.keys(shapes).filter((k) => k.startsWith('grad.'));
  const gradients = differentiate([{ tensor: source, gradient: input('seed', source.shape) }], wanted.map((k) => inputs[k.slice(5)]!), ops.add);
  const feeds: Record<string, TensorData> = { seed: float32(golden, `gout.${from}`) };
  for (const name of Object.keys(inputs)) feeds[`in.${name}`] = float32(golden, `in.${name}`);
  const context = await testContext();
  const all = { ...outputs, ...Object.fromEntries(wanted.map((k, i) => [k, gradients[i]!])) };
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs: all }));
  const results = await executable.run(feeds);
  executable.dispose();
  for (const k of wanted) expectClose(results[k]!, float32(golden, k), { relL2: 1e-4, maxOfRms: 5e-4, name: `${piece} ${k}` });
  for (const [name, values] of Object.entries(results)) {
    const expected = golden.get(`out.${name}`);
    if (expected?.dtype === 'F32') expectClose(values, float32(golden, `out.${name}`), { ...forward, name: `${piece} ${name}` });
  }
  return { results, golden };
}
