/** Small encoders with known weights, as safetensors and as the ONNX graph that PyTorch's exporter makes of them. */
import { PbfWriter } from 'pbf';
import { encoderTensorShapes } from '../../src/weights/encoder.ts';
import type { EncoderArchitecture, EncoderTensor } from '../../src/weights/encoder.ts';
import { writeSafetensors } from '../../src/weights/safetensors.ts';

export const smallArchitecture: EncoderArchitecture = {
  width: 8, depth: 2, numHeads: 2, patchSize: 3, numRegisters: 2, positionGrid: [2, 2], mlpRatio: 4, layerScale: true,
};

/** Weights that half precision holds exactly, different in every element of a tensor's first 1000. */
export function smallEncoder(architecture = smallArchitecture): Map<string, EncoderTensor> {
  let salt = 0;
  return new Map(
    [...encoderTensorShapes(architecture)].map(([name, shape]) => {
      salt += 17;
      const length = shape.reduce((a, b) => a * b, 1);
      return [name, { shape, data: Float32Array.from({ length }, (_, i) => ((i * 7 + salt) % 1009) / 512 - 1) }];
    }),
  );
}

export function asSafetensors(tensors: Iterable<[string, EncoderTensor]>, prefix = '', metadata?: Record<string, string>): Uint8Array<ArrayBuffer> {
  return writeSafetensors(
    [...tensors].map(([name, { shape, data }]) => [prefix + name, { dtype: 'F32', shape, data }] as const),
    metadata,
  );
}

export interface OnnxInitializer {
  name: string;
  dims: number[];
  /** TensorProto.DataType; 1 is float. */
  dataType?: number;
  raw?: Uint8Array;
  floats?: number[];
  int32s?: number[];
  int64s?: number[];
  doubles?: number[];
  uint64s?: number[];
  external?: boolean;
}

export interface OnnxOperation {
  operator: string;
  inputs: string[];
  outputs: string[];
}

export function writeOnnx(initializers: readonly OnnxInitializer[], nodes: readonly OnnxOperation[] = []): Uint8Array {
  const writeTensor = (tensor: OnnxInitializer, pbf: PbfWriter): void => {
    pbf.writePackedVarint(1, tensor.dims);
    pbf.writeVarintField(2, tensor.dataType ?? 1);
    if (tensor.floats) pbf.writePackedFloat(4, tensor.floats);
    if (tensor.int32s) pbf.writePackedVarint(5, tensor.int32s);
    if (tensor.int64s) pbf.writePackedVarint(7, tensor.int64s);
    pbf.writeStringField(8, tensor.name);
    if (tensor.raw) pbf.writeBytesField(9, tensor.raw);
    if (tensor.doubles) pbf.writePackedDouble(10, tensor.doubles);
    if (tensor.uint64s) pbf.writePackedVarint(11, tensor.uint64s);
    if (tensor.external) pbf.writeVarintField(14, 1);
  };
  const writeNode = (node: OnnxOperation, pbf: PbfWriter): void => {
    for (const input of node.inputs) pbf.writeStringField(1, input);
    for (const output of node.outputs) pbf.writeStringField(2, output);
    pbf.writeStringField(3, `/${node.operator}`);
    pbf.writeStringField(4, node.operator);
  };
  const pbf = new PbfWriter();
  pbf.writeVarintField(1, 8); // ir_version
  pbf.writeStringField(2, 'pytorch'); // producer_name
  pbf.writeMessage(7, (_, graph) => {
    for (const node of nodes) graph.writeMessage(1, writeNode, node);
    graph.writeStringField(2, 'main_graph');
    for (const tensor of initializers) graph.writeMessage(5, writeTensor, tensor);
  }, null);
  return pbf.finish().slice();
}

export const rawFloats = (values: Iterable<number>): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

/**
 * As the exporter writes it: `backbone.` before the names, matrices transposed and anonymous, the position embedding
 * in two anonymous parts, one bias an Identity copy of another, and a head that is none of the encoder's.
 */
export function asOnnx(tensors: ReadonlyMap<string, EncoderTensor>): Uint8Array {
  const initializers: OnnxInitializer[] = [];
  const nodes: OnnxOperation[] = [];
  let anonymous = 100;
  for (const [name, { shape, data }] of tensors) {
    const constant = (label: string, dims: number[], values: Iterable<number>): string => {
      initializers.push({ name: label, dims, raw: rawFloats(values) });
      return label;
    };
    if (name === 'embeddings.position_embeddings') {
      const [, count, width] = shape as [number, number, number];
      const first = constant(`onnx::Concat_${anonymous++}`, [1, 1, width], data.subarray(0, width));
      const grid = constant(`onnx::Reshape_${anonymous++}`, [1, count - 1, width], data.subarray(width));
      nodes.push(
        { operator: 'Concat', inputs: ['backbone.embeddings.cls_token', 'patches'], outputs: ['tokens'] },
        { operator: 'Reshape', inputs: [grid, 'shape'], outputs: ['grid1'] },
        { operator: 'Transpose', inputs: ['grid1'], outputs: ['grid2'] },
        { operator: 'Resize', inputs: ['grid2', '', '', 'sizes'], outputs: ['grid3'] },
        { operator: 'Concat', inputs: [first, 'grid3'], outputs: ['positions'] },
      );
    } else if (shape.length === 2) {
      const [out, into] = shape as [number, number];
      const transposed = Float32Array.from({ length: data.length }, (_, i) => data[(i % out) * into + Math.floor(i / out)]!);
      const matrix = constant(`onnx::MatMul_${anonymous++}`, [into, out], transposed);
      const product = `product${anonymous}`;
      const bias = `backbone.${name.replace(/weight$/, 'bias')}`;
      nodes.push(
        { operator: 'MatMul', inputs: ['x', matrix], outputs: [product] },
        // The exporter writes both orders.
        { operator: 'Add', inputs: anonymous % 2 ? [bias, product] : [product, bias], outputs: [`sum${anonymous}`] },
      );
    } else if (name === 'encoder.layer.1.norm2.bias') {
      const copy = constant('shared', shape, data);
      nodes.unshift({ operator: 'Identity', inputs: [copy], outputs: [`backbone.${name}`] });
    } else {
      constant(`backbone.${name}`, shape, data);
    }
  }
  initializers.push({ name: 'decoder.final_conv.weight', dims: [1, 2, 1, 1], raw: rawFloats([1, 2]) });
  initializers.push({ name: 'axes', dims: [1], dataType: 7, int64s: [-1] });
  return writeOnnx(initializers, nodes);
}
