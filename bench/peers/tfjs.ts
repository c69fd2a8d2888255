/** tensorflow.js on its WebGPU back end: eager operations and gradients by tape. */
import * as tf from '@tensorflow/tfjs-core';
import type { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
// oxlint-disable-next-line import/no-unassigned-import -- registers the back end
import '@tensorflow/tfjs-backend-webgpu';
// oxlint-disable-next-line import/no-unassigned-import -- registers the gradients, which the package itself leaves out
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import type { BlockProblem, GemmProblem, Peer, Racer, Variant } from './peer.ts';

export const tfjsPeer: Peer = { name: 'tensorflow.js', gemm, block };

async function start(): Promise<WebGPUBackend> {
  if (!await tf.setBackend('webgpu')) throw new Error('tensorflow.js could not start its WebGPU back end.');
  await tf.ready();
  return tf.backend() as WebGPUBackend;
}

function racer(backend: WebGPUBackend, compute: (variant: Variant) => tf.Tensor[]): Racer {
  let last: tf.Tensor[] = [];
  return {
    async run(variant, count) {
      for (let n = 0; n < count; n++) {
        tf.dispose(last);
        last = tf.tidy(() => compute(variant));
      }
      // What is recorded but not yet sent; it must not be sent with a pass still open, or nothing runs and zeros come back.
      backend.ensureCommandEncoderReady();
      backend.endComputePassEncoder();
      backend.submitQueue();
      await backend.queue.onSubmittedWorkDone();
    },
    read: () => Promise.all(last.map(async (tensor) => await tensor.data() as Float32Array)),
    dispose: () => tf.dispose(last),
  };
}

async function gemm({ rows, columns, depth, a, b }: GemmProblem): Promise<Racer> {
  const backend = await start();
  const left = a.map((values) => tf.tensor2d(values, [rows, depth]));
  const right = tf.tensor2d(b, [depth, columns]);
  return racer(backend, (variant) => [tf.matMul(left[variant]!, right)]);
}

async function block(problem: BlockProblem): Promise<Racer> {
  const backend = await start();
  const { tokens, width, numHeads, numPrototypes, epsilon, parameters } = problem;
  const headSize = width / numHeads;

  const linear = (x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor): tf.Tensor => tf.add(tf.matMul(x, weight, false, true), bias);
  const layerNorm = (x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor): tf.Tensor => {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const variance = tf.mean(tf.square(centred), -1, true);
    return tf.add(tf.mul(tf.div(centred, tf.sqrt(tf.add(variance, epsilon))), weight), bias);
  };
  const byHead = (x: tf.Tensor, rows: number): tf.Tensor => tf.transpose(tf.reshape(x, [rows, numHeads, headSize]), [1, 0, 2]);
  const normalized = (x: tf.Tensor): tf.Tensor => tf.div(x, tf.maximum(tf.sqrt(tf.sum(tf.square(x), -1, true)), 1e-12));
  const gelu = (x: tf.Tensor): tf.Tensor => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1));

  const names = ['y', 'prototypes', ...parameters.map(({ name }) => name)];
  const forward = (...values: tf.Tensor[]): tf.Tensor => {
    const p = (name: string): tf.Tensor => values[names.indexOf(name)]!;
    const query = linear(layerNorm(p('y'), p('norm1.weight'), p('norm1.bias')), p('attn.q.weight'), p('attn.q.bias'));
    const keyValue = linear(layerNorm(p('prototypes'), p('norm1.weight'), p('norm1.bias')), p('attn.kv.weight'), p('attn.kv.bias'));
    const [key, value] = tf.split(keyValue, 2, 1) as [tf.Tensor, tf.Tensor];
    const cosine = tf.matMul(normalized(byHead(query, tokens)), normalized(byHead(key, numPrototypes)), false, true);
    const weights = tf.relu(tf.mul(cosine, tf.reshape(p('attn.learn_scale'), [numHeads, 1, 1])));
    const gathered = tf.reshape(tf.transpose(tf.matMul(weights, byHead(value, numPrototypes)), [1, 0, 2]), [tokens, width]);
    const attended = linear(gathered, p('attn.proj.weight'), p('attn.proj.bias'));
    const hidden = gelu(linear(layerNorm(attended, p('norm2.weight'), p('norm2.bias')), p('mlp.fc1.weight'), p('mlp.fc1.bias')));
    return tf.add(attended, linear(hidden, p('mlp.fc2.weight'), p('mlp.fc2.bias')));
  };
  const step = tf.valueAndGrads(forward);

  const y = problem.y.map((values) => tf.tensor2d(values, [tokens, width]));
  const shared = [tf.tensor2d(problem.prototypes, [numPrototypes, width]), ...parameters.map(({ shape, data }) => tf.tensor(data, [...shape]))];
  const gradient = tf.tensor2d(problem.gradient, [tokens, width]);
  return racer(backend, (variant) => {
    const { value, grads } = step([y[variant]!, ...shared], gradient);
    return [value, ...grads];
  });
}
