/**
 * The safetensors container: an 8-byte little-endian header length, a JSON header `{ name: { dtype, shape,
 * data_offsets: [begin, end] } }` and the tensors' bytes, back to back without holes. Reading is strict, because a
 * file that lies about itself must be refused before its numbers are used; writing is deterministic and lays tensors
 * out as the reference library does, so the same tensors give the same bytes, and the same SHA-256, everywhere.
 *
 * Source: https://huggingface.co/docs/safetensors (format), huggingface/safetensors `tensor.rs` (order, checks).
 */
import { InputError, UsageError } from '../errors.ts';
import { bfloat16ToFloat32, float16ToFloat32 } from './float16.ts';

const DTYPE_BYTES = {
  F64: 8, I64: 8, U64: 8,
  F32: 4, I32: 4, U32: 4,
  F16: 2, BF16: 2, I16: 2, U16: 2,
  F8_E4M3: 1, F8_E5M2: 1, I8: 1, U8: 1, BOOL: 1,
} as const;

/** Largest first and, within one size, in the reference library's order: the order in which tensors are laid out. */
const LAYOUT_ORDER: readonly SafetensorsDtype[] = [
  'U64', 'I64', 'F64', 'F32', 'U32', 'I32', 'BF16', 'F16', 'U16', 'I16', 'F8_E4M3', 'F8_E5M2', 'I8', 'U8', 'BOOL',
];

const MAX_HEADER_BYTES = 100_000_000;
const METADATA_KEY = '__metadata__';

export type SafetensorsDtype = keyof typeof DTYPE_BYTES;

export interface SafetensorsEntry {
  readonly dtype: SafetensorsDtype;
  readonly shape: number[];
  /** The tensor's raw little-endian bytes, row-major: a view into the file's bytes, not a copy. */
  readonly data: Uint8Array;
}

export interface SafetensorsFile {
  /** In the order of the header. */
  readonly tensors: Map<string, SafetensorsEntry>;
  readonly metadata: Record<string, string>;
}

/** A tensor to write: `data` holds exactly the bytes of `shape` in `dtype`, whatever the view's own element type. */
export interface SafetensorsInput {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

/**
 * Parses a whole safetensors file.
 * @param name what errors call the file
 * @throws {InputError} on every defect of the file: never returns a structure that points outside of `bytes`
 */
export function readSafetensors(bytes: Uint8Array, name = 'safetensors data'): SafetensorsFile {
  const fail = (cause: string, error?: unknown): never => {
    throw new InputError(`${name} is not a usable safetensors file: ${cause}. Get the file again, or use another one.`, {
      file: name,
      cause: error,
    });
  };

  if (bytes.length < 8) fail(`it has ${bytes.length} bytes, but the header length alone takes 8`);
  const headerLength = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
  if (headerLength > MAX_HEADER_BYTES) {
    fail(`it announces a header of ${headerLength} bytes, more than the ${MAX_HEADER_BYTES} that the format allows`);
  }
  if (headerLength > bytes.length - 8) {
    fail(`it announces a header of ${headerLength} bytes, but only ${bytes.length - 8} follow (truncated?)`);
  }

  let header: unknown;
  let text = '';
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, 8 + headerLength));
    header = JSON.parse(text);
  } catch (error) {
    fail('its header is not valid JSON', error);
  }
  if (!isRecord(header)) return fail('its header is not a JSON object');
  const repeated = firstRepeatedKey(text);
  if (repeated !== undefined) fail(`its header has ${JSON.stringify(repeated)} twice`);

  const payload = bytes.subarray(8 + headerLength);
  const tensors = new Map<string, SafetensorsEntry>();
  const ranges: { tensor: string; begin: number; end: number }[] = [];
  let metadata: Record<string, string> = {};
  for (const [tensor, info] of Object.entries(header)) {
    if (tensor === METADATA_KEY) {
      if (!isRecord(info) || Object.values(info).some((value) => typeof value !== 'string')) {
        fail(`its ${METADATA_KEY} is not an object of strings`);
      }
      metadata = info as Record<string, string>;
      continue;
    }
    const label = `tensor ${JSON.stringify(tensor)}`;
    if (!isRecord(info)) return fail(`${label} is not described by an object`);
    const { dtype, shape, data_offsets: offsets } = info;
    if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
      return fail(`${label} has the unknown dtype ${JSON.stringify(dtype)}; known are ${Object.keys(DTYPE_BYTES).join(', ')}`);
    }
    if (!isSizeList(shape)) return fail(`${label} has the shape ${JSON.stringify(shape)}, not a list of non-negative integers`);
    if (!isSizeList(offsets) || offsets.length !== 2) {
      return fail(`${label} has the data_offsets ${JSON.stringify(offsets)}, not [begin, end]`);
    }
    const byteLength = byteLengthOf(dtype as SafetensorsDtype, shape);
    if (byteLength === undefined) return fail(`${label} has a shape [${shape.join(', ')}] too large to count`);
    const [begin, end] = offsets as [number, number];
    if (begin > end || end > payload.length) {
      fail(`${label} claims bytes ${begin} to ${end} of ${payload.length} (truncated?)`);
    }
    if (end - begin !== byteLength) {
      fail(`${label}, ${dtype} [${shape.join(', ')}], needs ${byteLength} bytes but has ${end - begin}`);
    }
    tensors.set(tensor, { dtype: dtype as SafetensorsDtype, shape, data: payload.subarray(begin, end) });
    ranges.push({ tensor, begin, end });
  }

  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let expected = 0;
  for (const { tensor, begin, end } of ranges) {
    if (begin !== expected) {
      fail(`tensor ${JSON.stringify(tensor)} begins at byte ${begin}, ${begin < expected ? 'inside another tensor' : 'after a gap'}; expected ${expected}`);
    }
    expected = end;
  }
  if (expected !== payload.length) fail(`${payload.length - expected} bytes at its end belong to no tensor`);
  return { tensors, metadata };
}

/**
 * Writes a safetensors file. Deterministic: metadata keys and tensors are ordered here (element size, then name), so
 * the order in which they come does not matter, and the header is padded so that the data starts on a multiple of 8.
 * @throws {UsageError} when a tensor's bytes do not match its shape or a name is used twice
 */
export function writeSafetensors(
  tensors: Iterable<readonly [string, SafetensorsInput]>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const sorted = [...tensors].sort(
    ([nameA, a], [nameB, b]) =>
      LAYOUT_ORDER.indexOf(a.dtype) - LAYOUT_ORDER.indexOf(b.dtype) || compareText(nameA, nameB),
  );
  const header = new Map<string, unknown>();
  if (metadata) {
    header.set(METADATA_KEY, Object.fromEntries(Object.entries(metadata).sort(([a], [b]) => compareText(a, b))));
  }
  let offset = 0;
  for (const [name, { dtype, shape, data }] of sorted) {
    if (name === METADATA_KEY || header.has(name)) throw new UsageError(`Two tensors can't share the name ${JSON.stringify(name)}.`);
    const byteLength = isSizeList(shape) ? byteLengthOf(dtype, shape) : undefined;
    if (byteLength !== data.byteLength) {
      throw new UsageError(`Tensor ${JSON.stringify(name)}, ${dtype} [${shape.join(', ')}], needs ${byteLength} bytes, got ${data.byteLength}.`);
    }
    header.set(name, { dtype, shape, data_offsets: [offset, offset + byteLength] });
    offset += byteLength;
  }

  // Entry by entry: a plain object would move names that look like integers to the front.
  const entries = [...header].map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const json = new TextEncoder().encode(`{${entries.join(',')}}`);
  const headerLength = Math.ceil(json.length / 8) * 8;
  const out = new Uint8Array(8 + headerLength + offset);
  new DataView(out.buffer).setBigUint64(0, BigInt(headerLength), true);
  out.set(json, 8);
  out.fill(0x20, 8 + json.length, 8 + headerLength);
  let position = 8 + headerLength;
  for (const [, { data }] of sorted) {
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), position);
    position += data.byteLength;
  }
  return out;
}

/**
 * A tensor's values as float32, always a copy. F16 and BF16 are widened exactly, F64 is rounded.
 * @throws {InputError} for integer and 8-bit float tensors
 */
export function tensorToFloat32(entry: SafetensorsEntry, name = 'tensor'): Float32Array<ArrayBuffer> {
  const buffer = copyOf(entry);
  switch (entry.dtype) {
    case 'F32': return new Float32Array(buffer);
    case 'F64': return new Float32Array(new Float64Array(buffer));
    case 'F16': return float16ToFloat32(new Uint16Array(buffer));
    case 'BF16': return bfloat16ToFloat32(new Uint16Array(buffer));
    default: throw wrongDtype(name, entry, 'F32, F64, F16 or BF16');
  }
}

/**
 * A tensor's values as int32, always a copy.
 * @throws {InputError} for floats, and for 64-bit or unsigned values that int32 can't hold
 */
export function tensorToInt32(entry: SafetensorsEntry, name = 'tensor'): Int32Array<ArrayBuffer> {
  const buffer = copyOf(entry);
  switch (entry.dtype) {
    case 'I32': return new Int32Array(buffer);
    case 'I16': return new Int32Array(new Int16Array(buffer));
    case 'U16': return new Int32Array(new Uint16Array(buffer));
    case 'I8': return new Int32Array(new Int8Array(buffer));
    case 'U8': case 'BOOL': return new Int32Array(new Uint8Array(buffer));
    case 'U32': return Int32Array.from(new Uint32Array(buffer), (value) => checkInt32(value, name));
    case 'I64': return Int32Array.from(new BigInt64Array(buffer) as Iterable<bigint>, (value) => checkInt32(value, name));
    case 'U64': return Int32Array.from(new BigUint64Array(buffer) as Iterable<bigint>, (value) => checkInt32(value, name));
    default: throw wrongDtype(name, entry, 'an integer type');
  }
}

/**
 * The bytes of a U8 or BOOL tensor, always a copy.
 * @throws {InputError} for any other type
 */
export function tensorToUint8(entry: SafetensorsEntry, name = 'tensor'): Uint8Array<ArrayBuffer> {
  if (entry.dtype !== 'U8' && entry.dtype !== 'BOOL') throw wrongDtype(name, entry, 'U8 or BOOL');
  return new Uint8Array(copyOf(entry));
}

/** The file's data need not be aligned to its element size, so views are always made over a copy. */
function copyOf(entry: SafetensorsEntry): ArrayBuffer {
  return new Uint8Array(entry.data).buffer;
}

function wrongDtype(name: string, entry: SafetensorsEntry, expected: string): InputError {
  return new InputError(`${name} has the dtype ${entry.dtype}, expected ${expected}.`);
}

function checkInt32(value: number | bigint, name: string): number {
  const number = Number(value);
  if (number !== (number | 0)) throw new InputError(`${name} holds ${value}, which does not fit into 32 bits with a sign.`);
  return number;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizeList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** Bytes of a tensor, or undefined where an integer can't hold the count. */
function byteLengthOf(dtype: SafetensorsDtype, shape: readonly number[]): number | undefined {
  const elements = shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1);
  const bytes = elements * DTYPE_BYTES[dtype];
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** JSON.parse keeps the last of two equal keys silently; this looks at the (valid) text's own top-level keys. */
function firstRepeatedKey(json: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  for (const match of json.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g)) {
    const token = match[0];
    if (token === '{' || token === '[') depth++;
    else if (token === '}' || token === ']') depth--;
    else if (depth === 1 && match[1] !== undefined) {
      const key = JSON.parse(token.slice(0, -match[1].length)) as string;
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return undefined;
}
