/**
 * A frozen vision-transformer encoder's weights, from a safetensors file in the Hugging Face naming of DINOv2. The
 * architecture is read off the tensors' shapes, then every tensor is checked against it, so that what reaches the
 * GPU is complete, finite and of the right size. The encoder's identity is the SHA-256 of the very file that was
 * read: the same weights in another precision, order or container are another encoder.
 *
 * Source: DINOv2 (Oquab et al., 2023), https://huggingface.co/docs/transformers/model_doc/dinov2; registers:
 * Darcet et al., 2023.
 */
import { InputError } from '../errors.ts';
import { encoderPrefix } from './names.ts';
import { readSafetensors, tensorToFloat32 } from './safetensors.ts';
import type { SafetensorsEntry } from './safetensors.ts';

export interface EncoderArchitecture {
  /** Channels of a token, C. */
  readonly width: number;
  /** Blocks present in the file. */
  readonly depth: number;
  readonly numHeads: number;
  /** Side of a patch in pixels. */
  readonly patchSize: number;
  readonly numRegisters: number;
  /** Rows and columns of the learned position embedding, class token aside. */
  readonly positionGrid: readonly [number, number];
  /** Hidden channels of the MLP / width. */
  readonly mlpRatio: number;
  /** Whether blocks scale their branches by learned per-channel factors. */
  readonly layerScale: boolean;
}

export interface EncoderTensor {
  readonly shape: number[];
  /** Row-major; linear weights are [out, in]. */
  readonly data: Float32Array;
}

export interface EncoderWeights {
  readonly architecture: EncoderArchitecture;
  /** SHA-256 of the file's bytes, lower-case hexadecimal: the encoder's identity. */
  readonly sha256: string;
  readonly name: string;
  /** Hugging Face names without any prefix; `embeddings.mask_token` and `layernorm.*` only where the file has them. */
  readonly tensors: Map<string, EncoderTensor>;
}

export interface LoadEncoderOptions {
  /** What the encoder is called in reports and model files. */
  readonly name?: string;
  /** What errors call the file; `name` unless given. */
  readonly file?: string;
  /**
   * What is known of the architecture. `numHeads` can't be read off the weights and is width / 64 otherwise (or the
   * file's own metadata `num_heads`); a non-square `positionGrid` must be given; everything else is compared.
   */
  readonly architecture?: Partial<EncoderArchitecture>;
}

/**
 * @param bytes a whole safetensors file; F32, F16, BF16 and F64 weights become float32
 * @throws {InputError} naming the file and the tensor: missing, of a wrong shape, not finite, or of an architecture
 *   that this engine does not run (SwiGLU)
 */
export async function loadEncoderWeights(bytes: Uint8Array, options: LoadEncoderOptions = {}): Promise<EncoderWeights> {
  const file = options.file ?? options.name ?? 'encoder';
  const { tensors: entries, metadata } = readSafetensors(bytes, file);
  const prefix = encoderPrefix(entries.keys(), file);
  const found = new Map<string, SafetensorsEntry>();
  for (const [name, entry] of entries) if (name.startsWith(prefix)) found.set(name.slice(prefix.length), entry);

  const architecture = inferArchitecture(found, options.architecture ?? {}, metadata, file);
  const required = encoderTensorShapes(architecture);
  const optional = new Map([
    ['embeddings.mask_token', [1, architecture.width]],
    ['layernorm.weight', [architecture.width]],
    ['layernorm.bias', [architecture.width]],
  ]);
  for (const name of found.keys()) {
    if (name.startsWith('encoder.layer.') && !required.has(name)) {
      throw new InputError(`${file} has a tensor "${name}", which a DINOv2 encoder of this architecture does not have; expected a plain DINOv2 ViT.`, { file });
    }
  }

  const tensors = new Map<string, EncoderTensor>();
  for (const [name, shape] of [...required, ...optional]) {
    const entry = found.get(name);
    if (!entry && optional.has(name)) continue;
    if (!entry) throw missing(name, file);
    if (entry.shape.join() !== shape.join()) {
      throw new InputError(`${file}: tensor "${name}" has the shape [${entry.shape.join(', ')}], expected [${shape.join(', ')}].`, { file });
    }
    const data = tensorToFloat32(entry, `${file}: tensor "${name}"`);
    const bad = data.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) {
      throw new InputError(`${file}: value ${bad} of tensor "${name}" is ${data[bad]}; the weights are damaged, get the file again.`, { file });
    }
    tensors.set(name, { shape, data });
  }
  return { architecture, sha256: await sha256Hex(bytes), name: options.name ?? 'encoder', tensors };
}

/** Name and shape of every tensor that an encoder of this architecture must have, in the order of the forward pass. */
export function encoderTensorShapes(architecture: EncoderArchitecture): Map<string, number[]> {
  const { width, depth, patchSize, numRegisters, positionGrid, mlpRatio, layerScale } = architecture;
  const hidden = Math.round(width * mlpRatio);
  const shapes = new Map<string, number[]>([
    ['embeddings.cls_token', [1, 1, width]],
    ['embeddings.position_embeddings', [1, 1 + positionGrid[0] * positionGrid[1], width]],
    ['embeddings.patch_embeddings.projection.weight', [width, 3, patchSize, patchSize]],
    ['embeddings.patch_embeddings.projection.bias', [width]],
  ]);
  if (numRegisters > 0) shapes.set('embeddings.register_tokens', [1, numRegisters, width]);
  for (let index = 0; index < depth; index++) {
    const linear = (name: string, out: number, into: number): void => {
      shapes.set(`encoder.layer.${index}.${name}.weight`, [out, into]);
      shapes.set(`encoder.layer.${index}.${name}.bias`, [out]);
    };
    const norm = (name: string): void => {
      shapes.set(`encoder.layer.${index}.${name}.weight`, [width]);
      shapes.set(`encoder.layer.${index}.${name}.bias`, [width]);
    };
    norm('norm1');
    for (const role of ['query', 'key', 'value']) linear(`attention.attention.${role}`, width, width);
    linear('attention.output.dense', width, width);
    if (layerScale) shapes.set(`encoder.layer.${index}.layer_scale1.lambda1`, [width]);
    norm('norm2');
    linear('mlp.fc1', hidden, width);
    linear('mlp.fc2', width, hidden);
    if (layerScale) shapes.set(`encoder.layer.${index}.layer_scale2.lambda1`, [width]);
  }
  return shapes;
}

/** SHA-256 as lower-case hexadecimal. */
export async function sha256Hex(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function inferArchitecture(
  entries: ReadonlyMap<string, SafetensorsEntry>,
  given: Partial<EncoderArchitecture>,
  metadata: Readonly<Record<string, string>>,
  file: string,
): EncoderArchitecture {
  const shapeOf = (name: string, rank: number): number[] => {
    const entry = entries.get(name);
    if (!entry) throw missing(name, file);
    if (entry.shape.length !== rank || entry.shape.includes(0)) {
      throw new InputError(`${file}: tensor "${name}" has the shape [${entry.shape.join(', ')}], expected ${rank} dimensions, none empty.`, { file });
    }
    return entry.shape;
  };

  const [width, , patchSize] = shapeOf('embeddings.patch_embeddings.projection.weight', 4) as [number, number, number];
  const swiglu = [...entries.keys()].find((name) => /^encoder\.layer\.\d+\.mlp\.weights_(in|out)\./.test(name));
  if (swiglu !== undefined) {
    throw new InputError(`${file} has "${swiglu}": a SwiGLU encoder (the giant DINOv2), which is not supported; use a small, base or large one.`, { file });
  }
  const blocks = [...entries.keys()].flatMap((name) => /^encoder\.layer\.(\d+)\./.exec(name)?.[1] ?? []).map(Number);
  const depth = new Set(blocks).size;
  if (depth === 0) throw missing('encoder.layer.0.norm1.weight', file);
  const last = blocks.reduce((a, b) => Math.max(a, b), 0);
  if (last !== depth - 1) {
    const gap = Array.from({ length: depth }, (_, index) => index).find((index) => !blocks.includes(index))!;
    throw new InputError(`${file} has blocks up to encoder.layer.${last}, but encoder.layer.${gap} is missing.`, { file });
  }

  const positions = shapeOf('embeddings.position_embeddings', 3)[1]! - 1;
  const side = Math.round(Math.sqrt(positions));
  const positionGrid = given.positionGrid ?? ([side, side] as const);
  if (positions < 1 || positionGrid[0] * positionGrid[1] !== positions) {
    throw new InputError(
      `${file}: tensor "embeddings.position_embeddings" has ${positions} positions beside the class token, ` +
        (given.positionGrid ? `expected ${given.positionGrid.join(' x ')}.` : 'not a square grid: give architecture.positionGrid.'),
      { file },
    );
  }

  const numHeads = given.numHeads ?? Number(metadata.num_heads ?? width / 64);
  if (!Number.isInteger(numHeads) || numHeads < 1 || width % numHeads !== 0) {
    throw new InputError(
      `${file}: ${numHeads} attention heads do not divide the width ${width}; give architecture.numHeads (weights alone do not tell it, the default is width / 64).`,
      { file },
    );
  }

  const inferred: EncoderArchitecture = {
    width,
    depth,
    numHeads,
    patchSize,
    numRegisters: entries.has('embeddings.register_tokens') ? shapeOf('embeddings.register_tokens', 3)[1]! : 0,
    positionGrid,
    mlpRatio: shapeOf('encoder.layer.0.mlp.fc1.weight', 2)[0]! / width,
    layerScale: entries.has('encoder.layer.0.layer_scale1.lambda1'),
  };
  for (const key of Object.keys(given) as (keyof EncoderArchitecture)[]) {
    const expected = given[key];
    if (expected !== undefined && String(expected) !== String(inferred[key])) {
      throw new InputError(`${file} is not the expected encoder: its ${key} is ${String(inferred[key])}, expected ${String(expected)}.`, { file });
    }
  }
  return inferred;
}

function missing(name: string, file: string): InputError {
  return new InputError(`${file} has no tensor "${name}", which a DINOv2 encoder needs; the file is incomplete or another model.`, { file });
}
