/**
 * Attention against the golden set: outputs, attention weights and all gradients of softmax attention (self and cross)
 * and of the decoder's ReLU attention.
 */
import { expect, test } from 'vitest';
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { constant, input, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { add, channels, foldedAttention, foldPrototypes, prototypeAttentionWeights, reshape, softmaxAttention } from '../../src/ops/index.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

const forwardTolerance = { relL2: 1e-5, maxOfRms: 1e-4 };
const gradientTolerance = { relL2: 1e-4, maxOfRms: 5e-4 };

/** A piece: its shapes, its tensors, and a leaf for each `in.` and for `gout.y`. */
function piece(name: string) {
  const shapes = goldenJson<Record<string, Record<string, number[]>>>('pieces/index.json')[name]!;
  const tensors = goldenTensors(`pieces/${name}.safetensors`);
  const values = (key: string): Float32Array => float32(tensors, key);
  const leaf = (key: string): Tensor => input(key, shapes[key]!);
  return { shapes, values, leaf, numHeads: shapes['out._A']![1]! };
}

async function run(outputs: Record<string, Tensor>, values: (key: string) => Float32Array): Promise<Record<string, TensorData>> {
  const context = await testContext();
  const plan = compile({ target: context.target, outputs });
  const executable = await Executable.prepare(context, plan);
  return executable.run(Object.fromEntries([...plan.inputs.keys()].map((name) => [name, values(name)]))).finally(() => executable.dispose());
}

/**
 * The attention weights as the kernel uses them, [B, heads, Nq, Nk]: what it returns for values that are 1 in one
 * channel of each head for one key, d keys at a time.
 */
async function softmaxWeights(q: Float32Array, k: Float32Array, shape: number[], C: number): Promise<Float32Array> {
  const [B, heads, Nq, Nk] = shape as [number, number, number, number];
  const d = C / heads;
  const weights = new Float32Array(B * heads * Nq * Nk);
  for (let first = 0; first < Nk; first += d) {
    const [query, key, value] = [input('q', [B, Nq, C]), input('k', [B, Nk, C]), input('v', [B, Nk, C])];
    const y = softmaxAttention({ query: channels(query), key: channels(key), value: channels(value), numHeads: heads });
    const v = new Float32Array(B * Nk * C);
    for (let b = 0; b < B; b++) for (let m = first; m < Math.min(first + d, Nk); m++) for (let h = 0; h < heads; h++) v[(b * Nk + m) * C + h * d + m - first] = 1;
    const result = await run({ y }, (name) => ({ q, k, v })[name]!);
    for (let b = 0; b < B; b++) for (let h = 0; h < heads; h++) for (let n = 0; n < Nq; n++) for (let m = first; m < Math.min(first + d, Nk); m++) {
      weights[((b * heads + h) * Nq + n) * Nk + m] = result['y']![(b * Nq + n) * C + h * d + m - first]!;
    }
  }
  return weights;
}

describeGolden('attention', () => {
  test.each(['attention_softmax', 'attention_softmax_cross'])('%s', async (name) => {
    const { shapes, values, leaf, numHeads } = piece(name);
    const [q, k, v] = [leaf('in.q'), leaf('in.k'), leaf('in.v')];
    const y = softmaxAttention({ query: channels(q), key: channels(k), value: channels(v), numHeads });
    expect(y.shape).toEqual(shapes['out.y']);
    const [dq, dk, dv] = differentiate([{ tensor: y, gradient: leaf('gout.y') }], [q, k, v], add);
    const actual = await run({ y, q: dq!, k: dk!, v: dv! }, values);
    expectClose(actual['y']!, values('out.y'), { ...forwardTolerance, name: `${name}: y` });
    for (const key of ['q', 'k', 'v']) expectClose(actual[key]!, values(`grad.${key}`), { ...gradientTolerance, name: `${name}: gradient of ${key}` });
    const weights = await softmaxWeights(values('in.q'), values('in.k'), shapes['out._A']!, q.shape[2]!);
    expectClose(weights, values('out._A'), { ...forwardTolerance, name: `${name}: A` });
  });

  /** The folded attention with the identity as its output projection, so that it gives A v. */
  test('attention_relu_l2', async () => {
    const { shapes, values, leaf, numHeads } = piece('attention_relu_l2');
    const [B, N, C] = shapes['in.q'] as [number, number, number];
    const M = shapes['in.k']![1]!;
    const [k, v] = [values('in.k'), values('in.v')];
    const pairs = new Float32Array(2 * B * M * C).map((_, i) => (i % (2 * C) < C ? k : v)[Math.floor(i / (2 * C)) * C + (i % C)]!);
    const [q, learnScale, keyValue] = [leaf('in.q'), leaf('in.learn_scale'), input('pairs', [1, B, M, 2 * C])];
    const identity = constant('identity', [1, C * C], new Float32Array(C * C).map((_, i) => (i % (C + 1) === 0 ? 1 : 0)));
    const { keys, projected } = foldPrototypes({ keyValue, learnScale: reshape(learnScale, [1, numHeads]), weight: identity, bias: constant('no bias', [1, C], new Float32Array(C)), numHeads });
    const y = foldedAttention({ query: q, keys: reshape(keys, [B, M, C]), projected: reshape(projected, [B, M * numHeads + 1, C]), numHeads });
    const A = prototypeAttentionWeights({ query: channels(q), key: channels(reshape(keyValue, [B, M, 2 * C]), 0, C), learnScale, numHeads });
    expect([N, ...y.shape]).toEqual([N, ...shapes['out.y']!]);
    const [dq, dPairs, dScale] = differentiate([{ tensor: y, gradient: leaf('gout.y') }], [q, keyValue, learnScale], add);
    expect(dScale!.shape).toEqual(shapes['grad.learn_scale']);
    const actual = await run({ y, A, q: dq!, pairs: dPairs!, learn_scale: dScale! }, (name) => (name === 'pairs' ? pairs : values(name)));
    expectClose(actual['y']!, values('out.y'), { ...forwardTolerance, name: 'y' });
    expectClose(actual['A']!, values('out._A'), { ...forwardTolerance, name: 'A' });
    const half = (start: number): Float32Array => Float32Array.from({ length: B * M * C }, (_, i) => actual['pairs']![Math.floor(i / C) * 2 * C + start + (i % C)]!);
    for (const [key, gradient] of Object.entries({ q: actual['q']!, k: half(0), v: half(C), learn_scale: actual['learn_scale']! })) {
      expectClose(gradient, values(`grad.${key}`), { ...gradientTolerance, name: `gradient of ${key}` });
    }
  });
});
