/**
 * Writes an ONNX model, operators and weights in one protobuf file: the counterpart of onnx.ts. It knows the file format
 * alone; that the operators make sense together is up to who lists them.
 *
 * Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (messages and field numbers are quoted beside each line).
 */
import type { PbfWriter } from 'pbf';
import { UsageError } from '../errors.ts';

/** An integer, a list of integers, or a float, which JavaScript can't tell from an integer. */
export type OnnxAttribute = number | readonly number[] | { readonly float: number };

export interface OnnxNodeEntry {
  readonly name: string;
  /** Of ONNX's own operator set, e.g. `'MatMul'`. */
  readonly operator: string;
  /** Names of values; an empty string is an omitted optional input. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, OnnxAttribute>>;
}

export interface OnnxInitializer {
  readonly name: string;
  readonly shape: readonly number[];
  /** Row-major. */
  readonly data: Float32Array | BigInt64Array;
}

/** A float32 tensor that goes in or comes out; a dimension that is a name takes any size. */
export interface OnnxPort {
  readonly name: string;
  readonly shape: readonly (number | string)[];
  readonly description: string;
}

export interface OnnxModel {
  readonly name: string;
  readonly description: string;
  readonly producer: { readonly name: string; readonly version: string };
  /** Version of ONNX's operator set. */
  readonly opset: number;
  /** In an order in which they can be computed. */
  readonly nodes: readonly OnnxNodeEntry[];
  readonly initializers: readonly OnnxInitializer[];
  readonly inputs: readonly OnnxPort[];
  readonly outputs: readonly OnnxPort[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** The file format's version that goes with operator set 17 (ONNX 1.12). */
const irVersion = 8;
/** TensorProto.DataType */
const float = 1;
const int64 = 7;
/** AttributeProto.AttributeType */
const floatAttribute = 1;
const intAttribute = 2;
const intsAttribute = 7;

/**
 * The file's bytes; the same model gives the same bytes.
 * @throws {UsageError} where the package pbf is missing, a tensor's data don't fit its shape, or the file would reach
 *   protobuf's limit of 2 GiB
 */
export async function writeOnnx(model: OnnxModel): Promise<Uint8Array> {
  const { PbfWriter } = await import('pbf').catch((error: unknown) => {
    throw new UsageError(`Writing ONNX needs the package "pbf": npm install pbf. (${String(error)})`);
  });
  for (const { name, shape, data } of model.initializers) {
    const count = shape.reduce((product, size) => product * size, 1);
    if (data.length !== count) throw new UsageError(`The ONNX initialiser ${name} [${shape.join(', ')}] needs ${count} values, got ${data.length}.`);
  }
  const weightBytes = model.initializers.reduce((sum, { data }) => sum + data.byteLength, 0);
  // A node or a tensor's head takes a few hundred bytes at most; a guess that is too low costs a copy, nothing else.
  const guess = weightBytes + 512 * (model.nodes.length + model.initializers.length) + 65536;
  if (guess >= 2 ** 31) throw new UsageError(`The ONNX file would take ${guess} bytes, but protobuf ends at 2 GiB: use a smaller encoder.`);
  const pbf = new PbfWriter(new Uint8Array(guess));
  writeModel(model, pbf);
  return pbf.finish();
}

function writeModel(model: OnnxModel, pbf: PbfWriter): void {
  pbf.writeVarintField(1, irVersion); // ModelProto.ir_version
  pbf.writeStringField(2, model.producer.name); // .producer_name
  pbf.writeStringField(3, model.producer.version); // .producer_version
  pbf.writeStringField(6, model.description); // .doc_string
  pbf.writeMessage(7, writeGraph, model); // .graph
  pbf.writeMessage(8, (opset, message) => message.writeVarintField(2, opset), model.opset); // .opset_import; OperatorSetIdProto.version
  for (const entry of Object.entries(model.metadata)) pbf.writeMessage(14, writeProperty, entry); // .metadata_props
}

function writeGraph({ name, nodes, initializers, inputs, outputs }: OnnxModel, pbf: PbfWriter): void {
  for (const node of nodes) pbf.writeMessage(1, writeNode, node); // GraphProto.node
  pbf.writeStringField(2, name); // .name
  for (const tensor of initializers) pbf.writeMessage(5, writeTensor, tensor); // .initializer
  for (const port of inputs) pbf.writeMessage(11, writePort, port); // .input
  for (const port of outputs) pbf.writeMessage(12, writePort, port); // .output
}

function writeNode({ name, operator, inputs, outputs, attributes }: OnnxNodeEntry, pbf: PbfWriter): void {
  for (const input of inputs) pbf.writeStringField(1, input); // NodeProto.input
  for (const output of outputs) pbf.writeStringField(2, output); // .output
  pbf.writeStringField(3, name); // .name
  pbf.writeStringField(4, operator); // .op_type
  for (const attribute of Object.entries(attributes)) pbf.writeMessage(5, writeAttribute, attribute); // .attribute
}

function writeAttribute([name, value]: [string, OnnxAttribute], pbf: PbfWriter): void {
  pbf.writeStringField(1, name); // AttributeProto.name
  if (typeof value === 'number') {
    pbf.writeVarintField(3, value); // .i
    pbf.writeVarintField(20, intAttribute); // .type
  } else if ('float' in value) {
    pbf.writeFloatField(2, value.float); // .f
    pbf.writeVarintField(20, floatAttribute);
  } else {
    for (const item of value) pbf.writeVarintField(8, item); // .ints
    pbf.writeVarintField(20, intsAttribute);
  }
}

function writeTensor({ name, shape, data }: OnnxInitializer, pbf: PbfWriter): void {
  for (const size of shape) pbf.writeVarintField(1, size); // TensorProto.dims
  pbf.writeVarintField(2, data instanceof Float32Array ? float : int64); // .data_type
  pbf.writeStringField(8, name); // .name
  pbf.writeBytesField(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)); // .raw_data
}

function writePort({ name, shape, description }: OnnxPort, pbf: PbfWriter): void {
  pbf.writeStringField(1, name); // ValueInfoProto.name
  pbf.writeMessage(2, (_, type) => type.writeMessage(1, writeTensorType, shape), null); // .type; TypeProto.tensor_type
  pbf.writeStringField(3, description); // .doc_string
}

function writeTensorType(shape: OnnxPort['shape'], pbf: PbfWriter): void {
  pbf.writeVarintField(1, float); // TypeProto.Tensor.elem_type
  pbf.writeMessage(2, (dimensions, message) => { // .shape
    for (const size of dimensions) message.writeMessage(1, writeDimension, size); // TensorShapeProto.dim
  }, shape);
}

function writeDimension(size: number | string, pbf: PbfWriter): void {
  if (typeof size === 'number') pbf.writeVarintField(1, size); // TensorShapeProto.Dimension.dim_value
  else pbf.writeStringField(2, size); // .dim_param
}

function writeProperty([key, value]: [string, string], pbf: PbfWriter): void {
  pbf.writeStringField(1, key); // StringStringEntryProto.key
  pbf.writeStringField(2, value); // .value
}
