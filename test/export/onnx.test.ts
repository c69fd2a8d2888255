// The file that an export writes, read by itself: ONNX's rules for a graph, the weights, and what is refused. That the
// numbers are right is onnx-parity.test.ts's to show.
import { PbfReader } from 'pbf';
import { beforeAll, describe, expect, test } from 'vitest';
import { EncoderMismatchError, InputError, UsageError } from '../../src/errors.ts';
import { detectorGraph } from '../../src/export/onnx-detector.ts';
import { OnnxGraph } from '../../src/export/onnx-graph.ts';
import { exportOnnx } from '../../src/export/onnx.ts';
import { readModel, readModelMetadata } from '../../src/inspect/model-file.ts';
import { version } from '../../src/version.ts';
import type { EncoderWeights } from '../../src/weights/encoder.ts';
import { readOnnx, type OnnxGraph as ReadGraph } from '../../src/weights/onnx.ts';
import { writeOnnx, type OnnxModel } from '../../src/weights/onnx-writer.ts';
import { tensorToFloat32 } from '../../src/weights/safetensors.ts';
import { randomModel } from '../support/model-file.ts';
import { smallEncoder } from '../support/small-encoder.ts';

let encoder: EncoderWeights;
let model: Uint8Array;
let file: Uint8Array;
let graph: ReadGraph;

beforeAll(async () => {
  encoder = await smallEncoder();
  model = randomModel(encoder, { resize: 48, crop: 42, taps: [0, 2], decoderDepth: 2 });
  file = await exportOnnx({ model, encoder });
  graph = await readOnnx(file, 'exported.onnx');
});

describe('the graph', () => {
  test('has unique names, and every value is there before it is used', () => {
    const known = new Set(['image', ...graph.initializers.keys()]);
    expect(known.size).toBe(1 + graph.initializers.size);
    for (const { operator, inputs, outputs } of graph.nodes) {
      for (const name of inputs) expect(known, `an input of ${operator}`).toContain(name);
      for (const name of outputs) {
        expect(known, `an output of ${operator}`).not.toContain(name);
        known.add(name);
      }
    }
    expect(known).toContain('map');
    expect(known).toContain('score');
  });

  test('uses everything that it holds', () => {
    const used = new Set(graph.nodes.flatMap(({ inputs }) => inputs));
    expect([...graph.initializers.keys()].filter((name) => !used.has(name))).toEqual([]);
    const unread = graph.nodes.flatMap(({ outputs }) => outputs).filter((name) => !used.has(name));
    // TopK's second output is where the values were.
    expect(unread.filter((name) => !name.startsWith('score/TopK'))).toEqual(['score']);
  });

  test('stays with operators that every runtime has', () => {
    expect([...new Set(graph.nodes.map(({ operator }) => operator))].sort()).toEqual([
      'Add', 'Clip', 'Conv', 'Div', 'Erf', 'LayerNormalization', 'MatMul', 'Mul', 'Pad', 'ReduceL2', 'ReduceMean', 'ReduceSum', 'Relu', 'Reshape',
      'Slice', 'Softmax', 'Split', 'Sub', 'TopK', 'Transpose',
    ]);
  });

  test('holds every trained tensor and the encoder\'s blocks up to the last tap, matrices transposed', () => {
    const { values, config } = readModel(model, encoder);
    const frozen = [...encoder.tensors].filter(([name]) => /^encoder\.layer\.[0-2]\.(?!attention\.attention)|projection/.test(name));
    const expected = new Map([...[...values].map(([name, data]) => [name, data] as const), ...frozen.map(([name, { data }]) => [name, data] as const)]);
    for (const [name, data] of expected) {
      const stored = graph.initializers.get(name) ?? graph.initializers.get(`${name}.transposed`);
      expect(stored, name).toBeDefined();
      const [rows, columns] = stored!.shape as [number, number];
      const floats = tensorToFloat32(stored!);
      expect(floats.length, name).toBe(data.length);
      const isTransposed = !graph.initializers.has(name);
      expect(floats.every((value, i) => value === data[isTransposed ? (i % columns) * rows + Math.floor(i / columns) : i]), name).toBe(true);
    }
    expect([...graph.initializers.keys()].filter((name) => /^(encoder\.layer\.3|layernorm)/.test(name))).toEqual([]);
    const query = graph.initializers.get('encoder.layer.0.attention.attention.qkv.weight.transposed')!;
    expect(query.shape).toEqual([config.architecture.width, 3 * config.architecture.width]);
  });

  test('does not hold the batch in any shape', () => {
    const shapes = graph.nodes.filter(({ operator }) => operator === 'Reshape').map(({ inputs }) => inputs[1]!);
    expect(shapes.filter((name) => !/^int64\/(0|-1)_/.test(name))).toEqual([]);
  });
});

test('the file says what made it, how to prepare an image and which score is defective', () => {
  const { calibration } = readModelMetadata(model);
  const fields = headOf(file);
  expect(fields).toMatchObject({ irVersion: 8, opset: 17, producer: 'inp-former-webgpu', producerVersion: version });
  expect(fields.metadata).toMatchObject({
    threshold: String(calibration.threshold), encoder: encoder.name, encoder_sha256: encoder.sha256,
    resize: '48x48', crop: '42x42', map_size: '256x256', framing: 'stretch', view: '42x42', mean: '[0.485,0.456,0.406]', std: '[0.229,0.224,0.225]',
    preprocessing: expect.stringMatching(/resized to 48 x 48.*crop of 42 x 42/),
  });
  expect(JSON.parse(fields.metadata['calibration']!)).toEqual(calibration);
});

test('the same model gives the same bytes', async () => {
  expect(Buffer.compare(await exportOnnx({ model, encoder }), file)).toBe(0);
});

describe('refused', () => {
  test('another encoder, a damaged model file, a batch size that is none', async () => {
    await expect(exportOnnx({ model, encoder: await smallEncoder('other') })).rejects.toThrow(EncoderMismatchError);
    await expect(exportOnnx({ model: model.subarray(0, 1000), encoder, name: 'part.safetensors' })).rejects.toThrow(InputError);
    await expect(exportOnnx({ model: model.subarray(0, 1000), encoder, name: 'part.safetensors' })).rejects.toThrow(/part\.safetensors/);
    for (const batchSize of [0, 1.5, -1, NaN]) await expect(exportOnnx({ model, encoder, batchSize })).rejects.toThrow(UsageError);
  });

  test('two tensors of one name, and data that do not fit a shape', async () => {
    const g = new OnnxGraph();
    const data = Float32Array.of(1, 2);
    g.tensor({ name: 'a', shape: [2], data });
    expect(g.tensor({ name: 'a', shape: [2], data })).toBe('a');
    expect(() => g.tensor({ name: 'a', shape: [2], data: Float32Array.of(1, 3) })).toThrow(UsageError);
    await expect(writeOnnx({ ...empty, initializers: [{ name: 'a', shape: [3], data }] })).rejects.toThrow('a [3] needs 3 values, got 2');
  });

  test('a file beyond protobuf\'s 2 GiB, before it is made', async () => {
    // A stand-in for weights that no test machine should hold.
    const huge = { length: 2 ** 29, byteLength: 2 ** 31 } as unknown as Float32Array;
    await expect(writeOnnx({ ...empty, initializers: [{ name: 'huge', shape: [2 ** 29], data: huge }] })).rejects.toThrow(/2 GiB/);
  });
});

test('an encoder that lacks a tensor is named', () => {
  const { config, values } = readModel(model, encoder);
  const tensors = new Map(encoder.tensors);
  tensors.delete('encoder.layer.1.norm2.bias');
  expect(() => detectorGraph({ config, encoder: { ...encoder, tensors }, trained: values, mapSize: 256 })).toThrow(/small-encoder has no tensor encoder\.layer\.1\.norm2\.bias/);
});

const empty: OnnxModel = { name: 'empty', description: '', producer: { name: 'test', version: '1' }, opset: 17, nodes: [], initializers: [], inputs: [], outputs: [], metadata: {} };

/** The fields of ModelProto that readOnnx leaves aside. */
function headOf(bytes: Uint8Array): { irVersion: number; opset: number; producer: string; producerVersion: string; metadata: Record<string, string> } {
  const head = { irVersion: 0, opset: 0, producer: '', producerVersion: '', metadata: {} as Record<string, string> };
  new PbfReader(bytes).readFields((tag, _, pbf) => {
    if (tag === 1) head.irVersion = pbf!.readVarint();
    else if (tag === 2) head.producer = pbf!.readString();
    else if (tag === 3) head.producerVersion = pbf!.readString();
    else if (tag === 8) pbf!.readMessage((field, _, opset) => { if (field === 2) head.opset = opset!.readVarint(); }, null);
    else if (tag === 14) {
      const [key, value] = pbf!.readMessage((field, texts: string[], entry) => { texts[field - 1] = entry!.readString(); }, ['', '']) as [string, string];
      head.metadata[key] = value;
    }
  }, null);
  return head;
}
