/**
 * Reads the weights (initialisers) and the bare node list out of an ONNX file, without a runtime that could execute
 * it. ONNX is protobuf: `pbf` reads the fields that matter here and skips the rest. The node list is kept because
 * exporters fold `Linear` weights into anonymous, transposed constants whose names only the graph can tell.
 *
 * Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (field numbers are quoted beside each case).
 */
import type { PbfReader } from 'pbf';
import { InpFormerError, InputError, UsageError } from '../errors.ts';
import type { SafetensorsDtype, SafetensorsEntry } from './safetensors.ts';

export interface OnnxNode {
  /** The operator, e.g. `'MatMul'`. */
  readonly operator: string;
  /** Names of values; an empty string is an omitted optional input. */
  readonly inputs: string[];
  /** At least one. */
  readonly outputs: string[];
}

export interface OnnxGraph {
  /** Constant tensors by name; row-major little-endian bytes, a view into the file where ONNX stored them raw. */
  readonly initializers: Map<string, SafetensorsEntry>;
  /** In the order of the file, which is topological. */
  readonly nodes: OnnxNode[];
}

/** TensorProto.DataType -> the same type in safetensors' terms, and the field that holds values that are not raw. */
const DATA_TYPES: Readonly<Record<number, { dtype: SafetensorsDtype; field: ValueField; pack: Pack }>> = {
  1: { dtype: 'F32', field: 'floats', pack: (values) => new Float32Array(values) },
  2: { dtype: 'U8', field: 'int32s', pack: (values) => new Uint8Array(values) },
  3: { dtype: 'I8', field: 'int32s', pack: (values) => new Int8Array(values) },
  4: { dtype: 'U16', field: 'int32s', pack: (values) => new Uint16Array(values) },
  5: { dtype: 'I16', field: 'int32s', pack: (values) => new Int16Array(values) },
  6: { dtype: 'I32', field: 'int32s', pack: (values) => new Int32Array(values) },
  7: { dtype: 'I64', field: 'int64s', pack: (values) => BigInt64Array.from(values, BigInt) },
  9: { dtype: 'BOOL', field: 'int32s', pack: (values) => new Uint8Array(values) },
  10: { dtype: 'F16', field: 'int32s', pack: (values) => new Uint16Array(values) },
  11: { dtype: 'F64', field: 'doubles', pack: (values) => new Float64Array(values) },
  12: { dtype: 'U32', field: 'uint64s', pack: (values) => new Uint32Array(values) },
  13: { dtype: 'U64', field: 'uint64s', pack: (values) => BigUint64Array.from(values, BigInt) },
  16: { dtype: 'BF16', field: 'int32s', pack: (values) => new Uint16Array(values) },
  17: { dtype: 'F8_E4M3', field: 'int32s', pack: (values) => new Uint8Array(values) },
  19: { dtype: 'F8_E5M2', field: 'int32s', pack: (values) => new Uint8Array(values) },
};

type ValueField = 'floats' | 'int32s' | 'int64s' | 'doubles' | 'uint64s';
type Pack = (values: number[]) => ArrayBufferView;

interface TensorMessage extends Record<ValueField, number[]> {
  name: string;
  dims: number[];
  dataType: number;
  raw: Uint8Array | undefined;
  external: boolean;
}

/** Stands for "these bytes are not what protobuf or ONNX allows" until the file's name is added. */
class Malformed extends Error {}

/**
 * @param name what errors call the file
 * @throws {InputError} when the bytes are not an ONNX model, are damaged, or keep their weights in another file
 */
export async function readOnnx(bytes: Uint8Array, name = 'ONNX data'): Promise<OnnxGraph> {
  const { PbfReader } = await import('pbf').catch((error: unknown) => {
    throw new UsageError(`Reading ${name} needs the package "pbf": npm install pbf. (${String(error)})`);
  });
  try {
    const graphs: OnnxGraph[] = [];
    const pbf = new PbfReader(bytes);
    readFields(pbf, bytes.length, (tag) => {
      if (tag === 7) graphs.push(readGraph(pbf)); // ModelProto.graph
    });
    if (graphs.length !== 1) throw new Malformed(`it holds ${graphs.length} graphs, a model has one`);
    return graphs[0]!;
  } catch (error) {
    if (error instanceof InpFormerError) throw error;
    // pbf itself throws RangeError and plain Errors where a value runs past the end.
    throw new InputError(
      `${name} is not a usable ONNX model: ${(error as Error).message}. Get the file again, or use another one.`,
      { file: name, cause: error },
    );
  }
}

function readGraph(pbf: PbfReader): OnnxGraph {
  const graph: OnnxGraph = { initializers: new Map(), nodes: [] };
  readMessage(pbf, (tag) => {
    if (tag === 1) graph.nodes.push(readNode(pbf)); // GraphProto.node
    else if (tag === 5) { // GraphProto.initializer
      const { name, entry } = readTensor(pbf);
      if (graph.initializers.has(name)) throw new Malformed(`it has two initialisers named ${JSON.stringify(name)}`);
      graph.initializers.set(name, entry);
    }
  });
  return graph;
}

function readNode(pbf: PbfReader): OnnxNode {
  const inputs: string[] = [];
  const outputs: string[] = [];
  let operator = '';
  readMessage(pbf, (tag) => {
    if (tag === 1) inputs.push(readText(pbf));
    else if (tag === 2) outputs.push(readText(pbf));
    else if (tag === 4) operator = readText(pbf);
  });
  if (outputs.length === 0) throw new Malformed(`a ${operator || 'nameless'} node has no output`);
  return { operator, inputs, outputs };
}

function readTensor(pbf: PbfReader): { name: string; entry: SafetensorsEntry } {
  const tensor: TensorMessage = {
    name: '', dims: [], dataType: 0, raw: undefined, external: false,
    floats: [], int32s: [], int64s: [], doubles: [], uint64s: [],
  };
  readMessage(pbf, (tag) => {
    switch (tag) {
      case 1: pbf.readPackedVarint(tensor.dims, true); break;
      case 2: tensor.dataType = pbf.readVarint(); break;
      case 4: pbf.readPackedFloat(tensor.floats); break;
      case 5: pbf.readPackedVarint(tensor.int32s, true); break;
      case 7: pbf.readPackedVarint(tensor.int64s, true); break;
      case 8: tensor.name = readText(pbf); break;
      case 9: tensor.raw = readBytes(pbf); break;
      case 10: pbf.readPackedDouble(tensor.doubles); break;
      case 11: pbf.readPackedVarint(tensor.uint64s); break;
      case 13: tensor.external = true; break; // external_data: where the bytes lie
      case 14: tensor.external ||= pbf.readVarint() === 1; break; // data_location = EXTERNAL
    }
  });

  const { name, dims, dataType } = tensor;
  const label = `initialiser ${JSON.stringify(name)}`;
  if (tensor.external) {
    throw new Malformed(`${label} is stored in another file (external data), which is not followed; save the model as one file`);
  }
  const type = DATA_TYPES[dataType];
  if (!type) throw new Malformed(`${label} has the data type ${dataType}, which can't hold weights`);
  const elements = dims.includes(0) ? 0 : dims.reduce((product, size) => product * size, 1);
  if (!dims.every((size) => Number.isSafeInteger(size) && size >= 0) || !Number.isSafeInteger(elements)) {
    throw new Malformed(`${label} has the impossible shape [${dims.join(', ')}]`);
  }

  const values = tensor[type.field];
  if (!tensor.raw && values.length !== elements) {
    throw new Malformed(`${label} [${dims.join(', ')}] needs ${elements} values but has ${values.length}`);
  }
  if (!values.every((value) => type.dtype.startsWith('F') || Number.isSafeInteger(value))) {
    throw new Malformed(`${label} holds integers beyond 2^53`);
  }
  const packed = type.pack(tensor.raw ? [] : values);
  const data = tensor.raw ?? new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength);
  const bytesPerElement = (packed as Uint8Array).BYTES_PER_ELEMENT;
  if (data.length !== elements * bytesPerElement) {
    throw new Malformed(`${label} [${dims.join(', ')}] needs ${elements * bytesPerElement} bytes but has ${data.length}`);
  }
  return { name, entry: { dtype: type.dtype, shape: dims, data } };
}

/** pbf trusts lengths; these four check that no message, text or byte string runs past what holds it. */
function readMessage(pbf: PbfReader, readField: (tag: number) => void): void {
  const length = pbf.readVarint();
  const end = pbf.pos + length;
  if (end > pbf.length) throw new Malformed(`a message claims ${length} bytes where ${pbf.length - pbf.pos} are left (truncated?)`);
  readFields(pbf, end, readField);
}

function readFields(pbf: PbfReader, end: number, readField: (tag: number) => void): void {
  pbf.readFields((tag) => readField(tag), undefined, end);
  if (pbf.pos !== end) throw new Malformed(`its fields do not add up at byte ${Math.min(pbf.pos, pbf.length)} (truncated?)`);
}

function readBytes(pbf: PbfReader): Uint8Array {
  const length = pbf.readVarint();
  if (length > pbf.length - pbf.pos) throw new Malformed(`${length} bytes are announced where ${pbf.length - pbf.pos} are left (truncated?)`);
  const start = pbf.pos;
  pbf.pos += length;
  return pbf.buf.subarray(start, pbf.pos);
}

function readText(pbf: PbfReader): string {
  return new TextDecoder().decode(readBytes(pbf));
}
