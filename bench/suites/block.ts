/**
 * One block of the INP-guided decoder, forward and backward, as this engine does it: what can be written in any library with
 * automatic differentiation, so that training can be raced.
 */
import { DeviceMemory } from '../../src/gpu/memory.ts';
import type { Target } from '../../src/gpu/target.ts';
import { Random } from '../../src/data/random.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { parameter, sizeOf, type Tensor } from '../../src/graph/tensor.ts';
import { headEpsilon } from '../../src/model/config.ts';
import { add, foldedAttention, foldPrototypes, gelu, layerNorm, linear, reshape } from '../../src/ops/index.ts';
import { variants, type BlockProblem, type Racer, type Variant } from '../peers/peer.ts';
import { compileFor, idle, readOutputs, type Runner } from './bench.ts';
import { randomValues } from './gemm.ts';
import { farthest } from './peaks.ts';

/** 256 tokens of the tiny encoder's width, six prototypes. */
export function blockProblem({ tokens = 256, width = 192, numHeads = 3, numPrototypes = 6 } = {}): BlockProblem {
  const hidden = 4 * width;
  const shapes: [string, number[]][] = [
    ['norm1.weight', [width]], ['norm1.bias', [width]], ['attn.learn_scale', [numHeads]],
    ['attn.q.weight', [width, width]], ['attn.q.bias', [width]], ['attn.kv.weight', [2 * width, width]], ['attn.kv.bias', [2 * width]],
    ['attn.proj.weight', [width, width]], ['attn.proj.bias', [width]], ['norm2.weight', [width]], ['norm2.bias', [width]],
    ['mlp.fc1.weight', [hidden, width]], ['mlp.fc1.bias', [hidden]], ['mlp.fc2.weight', [width, hidden]], ['mlp.fc2.bias', [width]],
  ];
  const parameters = shapes.map(([name, shape]) => {
    const random = new Random(`block ${name}`);
    const middle = /norm\d\.weight|learn_scale/.test(name) ? 1 : 0;
    return { name, shape, data: Float32Array.from({ length: sizeOf(shape) }, () => middle + random.uniform(-0.1, 0.1)) };
  });
  return {
    tokens, width, numHeads, numPrototypes, hidden, epsilon: headEpsilon, parameters,
    y: variants.map((v) => randomValues(`block y ${v}`, tokens * width)),
    prototypes: randomValues('block prototypes', numPrototypes * width),
    gradient: randomValues('block gradient', tokens * width),
  };
}

/** The output, then the gradients by y, the prototypes and each parameter, from the parameters of those names; as src/model/detector.ts has it. */
function blockGraph({ tokens, width, numHeads, numPrototypes, epsilon, parameters }: BlockProblem): Record<string, Tensor> {
  const y = parameter('y', [1, tokens, width]);
  const prototypes = parameter('prototypes', [1, numPrototypes, width]);
  const leaves = new Map(parameters.map(({ name, shape }) => [name, parameter(name, shape)]));
  const p = (name: string): Tensor => leaves.get(name)!;
  const dense = (x: Tensor, name: string): Tensor => linear(x, p(`${name}.weight`), p(`${name}.bias`));
  const norm = (x: Tensor, name: string): Tensor => layerNorm(x, p(`${name}.weight`), p(`${name}.bias`), epsilon);
  // The prototypes' side takes the tensors of several blocks in stacks; here of one.
  const stack = (name: string): Tensor => reshape(p(name), [1, sizeOf(p(name).shape)]);
  const keyValue = dense(norm(prototypes, 'norm1'), 'attn.kv');
  const folded = foldPrototypes({
    keyValue: reshape(keyValue, [1, ...keyValue.shape]), learnScale: stack('attn.learn_scale'), weight: stack('attn.proj.weight'), bias: stack('attn.proj.bias'), numHeads,
  });
  const query = dense(norm(y, 'norm1'), 'attn.q');
  const [keys, projected] = [folded.keys, folded.projected].map((t) => reshape(t, t.shape.slice(1))) as [Tensor, Tensor];
  const attended = foldedAttention({ query, keys, projected, numHeads });
  const output = add(attended, dense(gelu(dense(norm(attended, 'norm2'), 'mlp.fc1')), 'mlp.fc2'));
  const wanted = [y, prototypes, ...leaves.values()];
  const gradients = differentiate([{ tensor: output, gradient: parameter('gradient', [1, tokens, width]) }], wanted, add);
  return { output, ...Object.fromEntries(wanted.map(({ name }, i) => [`d ${name}`, gradients[i]!])) };
}

function valuesOf(problem: BlockProblem, variant: Variant): Map<string, Float32Array> {
  return new Map([['y', problem.y[variant]!], ['prototypes', problem.prototypes], ['gradient', problem.gradient], ...problem.parameters.map(({ name, data }) => [name, data] as const)]);
}

export async function blockRacer(runner: Runner, problem: BlockProblem): Promise<Racer & { readonly executable: Executable }> {
  const { engine } = runner;
  const { context } = engine;
  const outputs = blockGraph(problem);
  const memory = await DeviceMemory.allocate(context, 'block', [...valuesOf(problem, 0)].map(([name, data]) => [name, data.byteLength] as const));
  let executable: Executable;
  try {
    executable = await Executable.prepare(context, await compileFor(runner, outputs), memory.tensors);
  } catch (error) {
    memory.dispose();
    throw error;
  }
  for (const [name, data] of valuesOf(problem, 0)) memory.write(name, data);
  let current: Variant = 0;
  return {
    executable,
    async run(variant, count) {
      if (variant !== current) memory.write('y', problem.y[variant]!);
      current = variant;
      for (let n = 0; n < count; n++) await executable.run({}, { read: [] });
      await idle(engine);
    },
    read: () => readOutputs(engine, executable, Object.keys(outputs)),
    dispose() {
      executable.dispose();
      memory.dispose();
    },
  };
}

/** Floating-point operations of forward and backward, as this engine does them. */
export const blockFlops = (problem: BlockProblem, target: Target): number => compile({ target, outputs: blockGraph(problem) }).report.flops;

/** Judges a contender's output and gradients by the f64 reference. */
export function blockJudge(problem: BlockProblem): (outputs: readonly Float32Array[], variant: Variant) => string | undefined {
  const outputs = blockGraph(problem);
  const names = Object.keys(outputs);
  const expected = variants.map((v) => interpret(Object.values(outputs), valuesOf(problem, v)));
  return (actual, variant) => {
    if (actual.length !== names.length) return `There are ${actual.length} results, expected ${names.length}.`;
    for (const [i, name] of names.entries()) {
      const wrong = farthest(actual[i]!, expected[variant]![i]!, 1e-3);
      if (wrong) return `${name}: ${wrong}`;
    }
    return undefined;
  };
}
