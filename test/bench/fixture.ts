/** Results as a run on SwiftShader in Chrome gives them, with numbers that are easy to reckon with. */
import type { Measurement } from '../../bench/measurement.ts';
import type { Results } from '../../bench/results.ts';

export function measurement(id: string, seconds: number | readonly number[], more: Partial<Measurement> = {}): Measurement {
  const [suite] = id.split('/') as [Measurement['suite']];
  return { id, suite, group: 'Group', title: id, contender: 'ours', clock: 'wall', samples: typeof seconds === 'number' ? [seconds] : seconds, ...more };
}

const gemm = 'peers/gemm-768x1536x384';
const product = { group: 'Matrix product', title: 'C = A B', flops: 1e9 };

/** Everything that the targets of SwiftShader in Chrome are judged by, all of them met. */
export const goodMeasurements: readonly Measurement[] = [
  measurement(`${gemm}/ours`, 0.1, product),
  measurement(`${gemm}/jax-js`, 0.25, { ...product, contender: 'jax-js' }),
  measurement(`${gemm}/tensorflow-js`, 0.6, { ...product, contender: 'tensorflow.js' }),
  measurement(`${gemm}/onnxruntime-web-webgpu`, 0.9, { ...product, contender: 'onnxruntime-web WebGPU' }),
  ...['tiny-112', 'tiny-224', 'dinov2-small-224'].flatMap((model) => [
    measurement(`peers/inference-${model}/ours`, 1, { group: `Inspection, ${model}`, images: 1, values: { dispatches: 100, submits: 1 } }),
    measurement(`peers/inference-${model}/onnxruntime-web-webgpu`, 15, { group: `Inspection, ${model}`, images: 1, contender: 'onnxruntime-web WebGPU' }),
  ]),
  measurement('peers/decoder-block/ours', 0.1, { group: 'Decoder block' }),
  measurement('peers/decoder-block/jax-js', 0.4, { group: 'Decoder block', contender: 'jax-js' }),
  measurement('train/tiny-224/batch-8/step', 4, { group: 'Training', images: 8, values: { kernels: 290, submits: 1, peakBytes: 2e8 } }),
  measurement('train/tiny-224/batch-8/encode', 0.0005, { group: 'Training', clock: 'cpu' }),
  measurement('model/cold-start/total', 1, { group: 'Cold start' }),
  measurement('peers/cold-start/onnxruntime-web-webgpu/total', 20, { group: 'Cold start', contender: 'onnxruntime-web WebGPU' }),
  measurement('model/tiny-224/batch-1/total', [0.9, 1, 1.1], { group: 'Inspection, tiny 224', images: 1, values: { kernels: 100, submits: 1, peakBytes: 3e7 } }),
  measurement('model/tiny-224/batch-8/total', 6, { group: 'Inspection, tiny 224', images: 8 }),
  measurement('kernels/tiny-224/inspection/gemm', 0.01, { group: 'Kernels', title: 'gemm', clock: 'gpu', flops: 1e8, bytes: 1e5, values: { count: 8 } }),
];

export function results(more: Partial<Results> = {}): Results {
  return {
    format: 1, date: '2026-11-22T12:00:00.000Z', suite: 'all', quick: false, runtime: 'chrome', runtimeVersion: 'Chrome 147.0',
    adapter: { vendor: 'google', architecture: 'swiftshader', device: '', description: 'SwiftShader Device', name: 'SwiftShader Device', isSoftware: true, features: [], limits: {} },
    machine: { platform: 'linux x64', processor: 'A <fast> CPU', cores: 2 },
    packages: { 'inp-former-webgpu': '0.1.0', 'onnxruntime-web': '1.30.0', '@jax-js/jax': '0.1.25', '@tensorflow/tfjs-backend-webgpu': '4.22.0' },
    peaks: { flops: 18e9, bandwidth: 2e9, loads: 8e9 },
    figures: [
      { id: 'peak/train/dinov2-base-392/batch-16', title: 'training', value: 3e9, unit: 'bytes' },
      { id: 'peak/inspect/dinov2-small-392/batch-1', title: 'inspection', value: 2e8, unit: 'bytes' },
      { id: 'shipped/gzip', title: 'shipped', value: 70_000, unit: 'bytes' },
    ],
    measurements: goodMeasurements, leftOut: [{ suite: 'model', what: 'B 392', why: 'too slow' }], ...more,
  };
}

/** The fixture's measurements, with some changed or (where undefined) taken out. */
export function changed(changes: Readonly<Record<string, Partial<Measurement> | undefined>>): Measurement[] {
  return goodMeasurements.flatMap((m) => (m.id in changes ? (changes[m.id] ? [{ ...m, ...changes[m.id] }] : []) : [m]));
}
