/**
 * jax-js: NumPy's interface, automatic differentiation, and `jit`, which fuses. Its arrays are counted references that each
 * use consumes, hence `.ref`.
 */
import { blockUntilReady, defaultDevice, getWebGPUDevice, init, jit, nn, numpy as np, valueAndGrad, type Array as JaxArray } from '@jax-js/jax';
import type { BlockProblem, GemmProblem, Peer, Racer, Variant } from './peer.ts';

export const jaxPeer: Peer = { name: 'jax-js', gemm, block };

async function start(): Promise<void> {
  const devices = await init('webgpu');
  if (!devices.includes('webgpu')) throw new Error(`jax-js has no WebGPU device here, it offers ${devices.join(', ')}.`);
  defaultDevice('webgpu');
}

const toArray = (data: Float32Array, shape: readonly number[]): JaxArray => np.array(data as Float32Array<ArrayBuffer>, { shape: [...shape] });

/** Runs a function of the variant's arrays and keeps what the last run gave. */
function racer(compute: (variant: Variant) => JaxArray[]): Racer {
  let last: JaxArray[] = [];
  const drop = (): void => {
    for (const array of last) array.dispose();
    last = [];
  };
  return {
    async run(variant, count) {
      for (let n = 0; n < count; n++) {
        drop();
        last = compute(variant);
        await blockUntilReady(last);
      }
      await getWebGPUDevice().queue.onSubmittedWorkDone();
    },
    read: () => Promise.all(last.map(async (array) => await array.ref.data() as Float32Array)),
    dispose: drop,
  };
}

async function gemm({ rows, columns, depth, a, b }: GemmProblem): Promise<Racer> {
  await start();
  const left = a.map((values) => toArray(values, [rows, depth]));
  const right = toArray(b, [depth, columns]);
  const product = jit((x: JaxArray, y: JaxArray) => np.matmul(x, y));
  return racer((variant) => [product(left[variant]!.ref, right.ref)]);
}

type Tensors = Record<string, JaxArray>;

async function block(problem: BlockProblem): Promise<Racer> {
  await start();
  const { tokens, width, numHeads, numPrototypes, epsilon, parameters } = problem;
  const headSize = width / numHeads;

  const linear = (x: JaxArray, weight: JaxArray, bias: JaxArray): JaxArray => np.matmul(x, np.transpose(weight)).add(bias);
  const layerNorm = (x: JaxArray, weight: JaxArray, bias: JaxArray): JaxArray => {
    const centred = x.ref.sub(np.mean(x, -1, { keepdims: true }));
    const variance = np.mean(np.square(centred.ref), -1, { keepdims: true });
    return centred.div(np.sqrt(variance.add(epsilon))).mul(weight).add(bias);
  };
  const byHead = (x: JaxArray, rows: number): JaxArray => np.transpose(x.reshape([rows, numHeads, headSize]), [1, 0, 2]);
  const normalized = (x: JaxArray): JaxArray => {
    const norm = np.sqrt(np.sum(np.square(x.ref), -1, { keepdims: true }));
    return x.div(np.maximum(norm, 1e-12));
  };
  const forward = (p: Tensors): JaxArray => {
    const query = linear(layerNorm(p['y']!, p['norm1.weight']!.ref, p['norm1.bias']!.ref), p['attn.q.weight']!, p['attn.q.bias']!);
    const keyValue = linear(layerNorm(p['prototypes']!, p['norm1.weight']!, p['norm1.bias']!), p['attn.kv.weight']!, p['attn.kv.bias']!);
    const key = keyValue.ref.slice([], [0, width]);
    const value = keyValue.slice([], [width, 2 * width]);
    const cosine = np.matmul(normalized(byHead(query, tokens)), np.transpose(normalized(byHead(key, numPrototypes)), [0, 2, 1]));
    const weights = nn.relu(cosine.mul(p['attn.learn_scale']!.reshape([numHeads, 1, 1])));
    const gathered = np.transpose(np.matmul(weights, byHead(value, numPrototypes)), [1, 0, 2]).reshape([tokens, width]);
    const attended = linear(gathered, p['attn.proj.weight']!, p['attn.proj.bias']!);
    const hidden = nn.gelu(linear(layerNorm(attended.ref, p['norm2.weight']!, p['norm2.bias']!), p['mlp.fc1.weight']!, p['mlp.fc1.bias']!), { approximate: false });
    return attended.add(linear(hidden, p['mlp.fc2.weight']!, p['mlp.fc2.bias']!));
  };
  const objective = (p: Tensors, gradient: JaxArray): [JaxArray, JaxArray] => {
    const output = forward(p);
    return [np.sum(output.ref.mul(gradient)), output];
  };
  const names = ['y', 'prototypes', ...parameters.map(({ name }) => name)];
  const step = jit((p: Tensors, gradient: JaxArray): JaxArray[] => {
    const [[loss, output], gradients] = valueAndGrad(objective, { hasAux: true })(p, gradient) as unknown as [[JaxArray, JaxArray], Tensors];
    loss.dispose();
    return [output, ...names.map((name) => gradients[name]!)];
  });

  const shared: Tensors = { prototypes: toArray(problem.prototypes, [numPrototypes, width]) };
  for (const { name, shape, data } of parameters) shared[name] = toArray(data, shape);
  const y = problem.y.map((values) => toArray(values, [tokens, width]));
  const gradient = toArray(problem.gradient, [tokens, width]);
  return racer((variant) => {
    const values: Tensors = { y: y[variant]!.ref };
    for (const [name, array] of Object.entries(shared)) values[name] = array.ref;
    return step(values, gradient.ref) as JaxArray[];
  });
}
