/**
 * onnxruntime-web, as its documentation says to use it: for WebGPU with its tensors kept on the GPU where a product is
 * raced, for whole models from tensor to tensor, as a program that inspects images has it.
 */
import type * as OnnxRuntime from 'onnxruntime-web';
import { writeOnnx } from '../../src/weights/onnx-writer.ts';
import type { GemmProblem, InferenceProblem, Peer, Racer } from './peer.ts';

type Ort = typeof OnnxRuntime;

export function onnxruntimePeer(ort: Ort, backend: 'WebGPU' | 'wasm', wasmPaths?: string): Peer {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = 'error';
  if (wasmPaths !== undefined) ort.env.wasm.wasmPaths = wasmPaths;
  // Given as an object: as a mere name the provider ignores the session's options.
  const executionProviders = backend === 'wasm' ? ['wasm'] : [{ name: 'webgpu' as const }];
  const inference = async ({ onnx, images, size }: InferenceProblem): Promise<Racer> => {
    const session = await ort.InferenceSession.create(onnx, { executionProviders });
    const feeds = images.map((data) => ({ image: new ort.Tensor('float32', data, [1, 3, size, size]) }));
    let last: OnnxRuntime.InferenceSession.ReturnType | undefined;
    return {
      async run(variant, count) {
        for (let n = 0; n < count; n++) last = await session.run(feeds[variant]!);
      },
      read: async () => [last!['map']!.data as Float32Array, last!['score']!.data as Float32Array],
      dispose: () => void session.release(),
    };
  };
  if (backend === 'wasm') return { name: 'onnxruntime-web wasm', inference };
  return { name: 'onnxruntime-web WebGPU', inference, gemm: (problem) => gemm(ort, executionProviders, problem) };
}

async function gemm(ort: Ort, executionProviders: OnnxRuntime.InferenceSession.ExecutionProviderConfig[], { rows, columns, depth, a, b }: GemmProblem): Promise<Racer> {
  const port = (name: string, shape: number[]) => ({ name, shape, description: '' });
  const model = await writeOnnx({
    name: 'product', description: 'C = A B', producer: { name: 'benchmark', version: '1' }, opset: 17, initializers: [], metadata: {},
    nodes: [{ name: 'product', operator: 'MatMul', inputs: ['A', 'B'], outputs: ['C'], attributes: {} }],
    inputs: [port('A', [rows, depth]), port('B', [depth, columns])], outputs: [port('C', [rows, columns])],
  });
  const session = await ort.InferenceSession.create(model, { executionProviders, preferredOutputLocation: 'gpu-buffer' });
  const device = await ort.env.webgpu.device as unknown as GPUDevice;
  const buffers: GPUBuffer[] = [];
  const onGpu = (values: Float32Array, dims: number[]) => {
    const buffer = device.createBuffer({ size: values.byteLength, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    buffers.push(buffer);
    return ort.Tensor.fromGpuBuffer(buffer, { dataType: 'float32', dims });
  };
  const left = a.map((values) => onGpu(values, [rows, depth]));
  const right = onGpu(b, [depth, columns]);
  let last: OnnxRuntime.Tensor | undefined;
  return {
    async run(variant, count) {
      for (let n = 0; n < count; n++) {
        last?.dispose();
        last = (await session.run({ A: left[variant]!, B: right }))['C']!;
      }
      await device.queue.onSubmittedWorkDone();
    },
    read: async () => [await last!.getData() as Float32Array],
    dispose() {
      last?.dispose();
      void session.release();
      for (const buffer of buffers) buffer.destroy();
    },
  };
}
