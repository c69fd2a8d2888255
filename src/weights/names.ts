/**
 * One set of names for an encoder's tensors: those of the Hugging Face hub's DINOv2 (`embeddings.cls_token`,
 * `encoder.layer.N.attention.attention.query.weight` …). Checkpoints may put a prefix before them; ONNX exports also
 * lose the names of the matrices, because they fold `x W^T` into `MatMul(x, W')` with an anonymous W' = W^T, and split
 * the position embedding. The bias that is added next, and the concatenation, still tell which is which.
 */
import { InputError } from '../errors.ts';
import type { OnnxGraph, OnnxNode } from './onnx.ts';
import { tensorToFloat32 } from './safetensors.ts';
import type { SafetensorsEntry } from './safetensors.ts';

const ANCHOR = 'embeddings.cls_token';
const POSITIONS = 'embeddings.position_embeddings';

export interface NamedTensor {
  readonly shape: number[];
  readonly data: Float32Array;
}

/**
 * The text before every encoder tensor's name, e.g. `'backbone.'`, mostly empty.
 * @throws {InputError} when no tensor, or more than one, is an `embeddings.cls_token`
 */
export function encoderPrefix(names: Iterable<string>, file: string): string {
  const all = [...names];
  const anchors = all.filter((name) => name === ANCHOR || name.endsWith(`.${ANCHOR}`));
  if (anchors.length === 1) return anchors[0]!.slice(0, -ANCHOR.length);
  if (anchors.length > 1) {
    throw new InputError(`${file} holds more than one encoder (${anchors.join(', ')}); keep one of them.`, { file });
  }
  const meta = all.some((name) => /(^|\.)blocks\.\d+\.(\d+\.)?attn\.qkv\.weight$/.test(name));
  const found = all.length === 0 ? 'no tensors' : `${all.slice(0, 3).join(', ')}${all.length > 3 ? ', …' : ''}`;
  throw new InputError(
    `${file} has no tensor "${ANCHOR}": expected a DINOv2 encoder in the Hugging Face naming, found ${found}.` +
      (meta ? ' This is the naming of the original DINOv2 checkpoints: use the Hugging Face file of the same model.' : ''),
    { file },
  );
}

/**
 * The encoder inside an exported ONNX graph: canonical names, matrices as [out, in]. Weights of other parts of the
 * graph (heads, decoders) are left out. `embeddings.mask_token`, which exports drop because inference never reads
 * it, is added as zeros, so that the result has the tensors of a hub file.
 * @throws {InputError} when the graph holds no encoder
 */
export function encoderTensorsFromOnnx(graph: OnnxGraph, file: string): Map<string, NamedTensor> {
  const initializers = new Map(graph.initializers);
  for (const { operator, inputs, outputs } of graph.nodes) {
    // Parameters with equal values are stored once; the others are Identity copies that carry their names.
    const original = operator === 'Identity' ? initializers.get(inputs[0]!) : undefined;
    if (original) initializers.set(outputs[0]!, original);
  }
  const prefix = encoderPrefix(initializers.keys(), file);

  const tensors = new Map<string, NamedTensor>();
  for (const [name, entry] of initializers) {
    const canonical = name.startsWith(prefix) ? name.slice(prefix.length) : '';
    if (/^(embeddings|encoder\.layer\.\d+|layernorm)\./.test(canonical)) {
      tensors.set(canonical, { shape: entry.shape, data: tensorToFloat32(entry, `${file}: ${name}`) });
    }
  }
  for (const [weight, entry] of foldedMatrices(graph.nodes, initializers)) {
    const canonical = weight.startsWith(prefix) ? weight.slice(prefix.length) : '';
    if (canonical.startsWith('encoder.layer.') && !tensors.has(canonical)) {
      tensors.set(canonical, transposed(tensorToFloat32(entry, `${file}: ${weight}`), entry.shape));
    }
  }
  const width = tensors.get(ANCHOR)!.data.length;
  if (!tensors.has(POSITIONS)) tensors.set(POSITIONS, splitPositions(graph.nodes, initializers, width, file));
  if (!tensors.has('embeddings.mask_token')) {
    tensors.set('embeddings.mask_token', { shape: [1, width], data: new Float32Array(width) });
  }
  return tensors;
}

/** `Add(MatMul(x, W'), "….bias")` names the anonymous W' `….weight`. */
function* foldedMatrices(
  nodes: readonly OnnxNode[],
  initializers: ReadonlyMap<string, SafetensorsEntry>,
): Iterable<[string, SafetensorsEntry]> {
  const products = new Map<string, SafetensorsEntry>();
  for (const { operator, inputs, outputs } of nodes) {
    if (operator === 'MatMul') {
      const matrix = initializers.get(inputs[1]!);
      if (matrix?.shape.length === 2) products.set(outputs[0]!, matrix);
    } else if (operator === 'Add') {
      const matrix = products.get(inputs[0]!) ?? products.get(inputs[1]!);
      const bias = inputs.find((input) => initializers.has(input) && input.endsWith('.bias'));
      if (matrix && bias !== undefined) yield [`${bias.slice(0, -'.bias'.length)}.weight`, matrix];
    }
  }
}

/** `Concat([1,1,C], …Resize(…[1,N,C]…))`: the class token's part and the grid's part, joined to [1, 1 + N, C]. */
function splitPositions(
  nodes: readonly OnnxNode[],
  initializers: ReadonlyMap<string, SafetensorsEntry>,
  width: number,
  file: string,
): NamedTensor {
  const producers = new Map(nodes.flatMap((node) => node.outputs.map((output) => [output, node] as const)));
  const isTable = (entry: SafetensorsEntry | undefined): entry is SafetensorsEntry =>
    entry?.shape.length === 3 && entry.shape[0] === 1 && entry.shape[2] === width;

  for (const { operator, inputs } of nodes) {
    if (operator !== 'Concat' || inputs.length !== 2) continue;
    const first = initializers.get(inputs[0]!);
    if (!isTable(first) || first.shape[1] !== 1 || inputs[0]!.endsWith(ANCHOR)) continue;
    // Nodes come in topological order and a walk to the producers ends; `seen` only guards against damaged graphs.
    const seen = new Set<string>();
    let value = inputs[1]!;
    while (!initializers.has(value) && !seen.has(value)) {
      seen.add(value);
      const producer = producers.get(value);
      if (!producer || !['Reshape', 'Transpose', 'Cast', 'Resize', 'Identity'].includes(producer.operator)) break;
      value = producer.inputs[0] ?? '';
    }
    const grid = initializers.get(value);
    if (!isTable(grid)) continue;
    const data = new Float32Array((1 + grid.shape[1]!) * width);
    data.set(tensorToFloat32(first, `${file}: ${inputs[0]}`));
    data.set(tensorToFloat32(grid, `${file}: ${value}`), width);
    return { shape: [1, 1 + grid.shape[1]!, width], data };
  }
  throw new InputError(
    `${file} has neither an initialiser "${POSITIONS}" nor a position embedding split into class token and grid; use a safetensors file of this encoder.`,
    { file },
  );
}

/** [rows, columns] row-major -> [columns, rows] row-major. */
function transposed(data: Float32Array, shape: readonly number[]): NamedTensor {
  const [rows, columns] = shape as [number, number];
  const out = new Float32Array(data.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = data[row * columns + column]!;
  }
  return { shape: [columns, rows], data: out };
}
