import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError, UsageError } from '../../src/errors.ts';
import { float16ToFloat32, float32ToFloat16 } from '../../src/weights/float16.ts';
import { readSafetensors, tensorToFloat32, tensorToInt32, tensorToUint8, writeSafetensors } from '../../src/weights/safetensors.ts';
import type { SafetensorsDtype, SafetensorsEntry, SafetensorsInput } from '../../src/weights/safetensors.ts';

const sizes: Record<SafetensorsDtype, number> = {
  F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2, F8_E4M3: 1, F8_E5M2: 1, I8: 1, U8: 1, BOOL: 1,
};

/** A file with any header and payload, however wrong. */
function file(header: unknown, payload = 0): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + payload);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const entry = (dtype: SafetensorsDtype, data: ArrayBufferView, shape = [data.byteLength / sizes[dtype]]): SafetensorsEntry => ({
  dtype,
  shape,
  data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
});

const anyTensor = fc
  .record({
    dtype: fc.constantFrom(...(Object.keys(sizes) as SafetensorsDtype[])),
    shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    seed: fc.integer({ min: 0, max: 255 }),
  })
  .map(({ dtype, shape, seed }): SafetensorsInput => {
    const length = shape.reduce((a, b) => a * b, 1) * sizes[dtype];
    return { dtype, shape, data: Uint8Array.from({ length }, (_, i) => i * 31 + seed) };
  });

const anyFile = fc.record({
  tensors: fc
    .dictionary(fc.string({ unit: 'grapheme', maxLength: 12 }), anyTensor, { maxKeys: 6 })
    .map((tensors) => Object.entries(tensors).filter(([name]) => name !== '__metadata__')),
  metadata: fc.option(fc.dictionary(fc.string({ maxLength: 8 }), fc.string({ unit: 'grapheme', maxLength: 8 }), { maxKeys: 3 })),
});

describe('safetensors round trip', () => {
  it('gives back names, types, shapes, bytes and metadata', () => {
    fc.assert(
      fc.property(anyFile, ({ tensors, metadata }) => {
        const read = readSafetensors(writeSafetensors(tensors, metadata ?? undefined));
        expect(new Map(Object.entries(read.metadata))).toEqual(new Map(Object.entries(metadata ?? {})));
        expect([...read.tensors.keys()].sort()).toEqual(tensors.map(([name]) => name).sort());
        for (const [name, { dtype, shape, data }] of tensors) {
          const found = read.tensors.get(name)!;
          expect(found.dtype).toBe(dtype);
          expect(found.shape).toEqual(shape);
          expect(found.data).toEqual(data);
        }
      }),
    );
  });

  it('writes the same bytes whatever the order, with the data on a multiple of 8', () => {
    fc.assert(
      fc.property(anyFile, ({ tensors, metadata }) => {
        const reversed = metadata && Object.fromEntries(Object.entries(metadata).reverse());
        const bytes = writeSafetensors(tensors, metadata ?? undefined);
        expect(writeSafetensors([...tensors].reverse(), reversed ?? undefined)).toEqual(bytes);
        expect(Number(new DataView(bytes.buffer).getBigUint64(0, true)) % 8).toBe(0);
      }),
    );
  });

  it('lays tensors out as the reference library does: larger types first, then by name', () => {
    const bytes = writeSafetensors([
      ['b', { dtype: 'F16', shape: [1], data: new Uint16Array([0x3c00]) }],
      ['z', { dtype: 'F32', shape: [1], data: new Float32Array([1]) }],
      ['2', { dtype: 'F16', shape: [1], data: new Uint16Array([0x4000]) }],
    ], { format: 'pt' });
    const header = new TextDecoder().decode(bytes.subarray(8, bytes.length - 8));
    expect(header.trimEnd()).toBe(
      '{"__metadata__":{"format":"pt"},"z":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' +
        '"2":{"dtype":"F16","shape":[1],"data_offsets":[4,6]},"b":{"dtype":"F16","shape":[1],"data_offsets":[6,8]}}',
    );
  });

  it('reads a file that does not start at the beginning of its buffer', () => {
    const bytes = writeSafetensors([['a', { dtype: 'F32', shape: [2], data: new Float32Array([1.5, -2]) }]]);
    const moved = new Uint8Array(bytes.length + 3);
    moved.set(bytes, 3);
    expect([...tensorToFloat32(readSafetensors(moved.subarray(3)).tensors.get('a')!)]).toEqual([1.5, -2]);
  });

  it('refuses to write what does not fit together', () => {
    const data = new Float32Array(2);
    expect(() => writeSafetensors([['a', { dtype: 'F32', shape: [3], data }]])).toThrow(UsageError);
    expect(() => writeSafetensors([['a', { dtype: 'F32', shape: [2], data }], ['a', { dtype: 'F32', shape: [2], data }]])).toThrow(/share the name/);
    expect(() => writeSafetensors([['__metadata__', { dtype: 'F32', shape: [2], data }]])).toThrow(UsageError);
  });
});

describe('damaged safetensors', () => {
  const f32 = (begin: number, end: number, shape = [(end - begin) / 4]): object => ({ dtype: 'F32', shape, data_offsets: [begin, end] });
  const longHeader = new Uint8Array(8);
  new DataView(longHeader.buffer).setBigUint64(0, 200_000_000n, true);
  const cases: [string, Uint8Array, RegExp][] = [
    ['too short for a header', new Uint8Array(5), /5 bytes/],
    ['a header beyond the file', file('{}').subarray(0, 9), /only 1 follow/],
    ['a huge header', longHeader, /200000000/],
    ['no JSON', file('{"a":'), /not valid JSON/],
    ['no UTF-8', file('{"a":1}').map((byte, i) => (i === 10 ? 0xff : byte)), /not valid JSON/],
    ['no object', file('[]'), /not a JSON object/],
    ['null', file('null'), /not a JSON object/],
    ['metadata that are no strings', file({ __metadata__: { a: 1 } }), /object of strings/],
    ['a tensor that is no object', file({ a: 3 }), /"a" is not described/],
    ['an unknown type', file({ a: { dtype: 'F31', shape: [], data_offsets: [0, 4] } }, 4), /unknown dtype "F31"/],
    ['a type named like an object method', file({ a: { dtype: 'toString', shape: [], data_offsets: [0, 4] } }, 4), /unknown dtype/],
    ['a negative size', file({ a: f32(0, 4, [-1]) }, 4), /shape \[-1\]/],
    ['a fractional size', file({ a: f32(0, 4, [0.5]) }, 4), /non-negative integers/],
    ['a shape too large to count', file({ a: f32(0, 4, [2 ** 40, 2 ** 40]) }, 4), /too large to count/],
    ['offsets that are no pair', file({ a: { dtype: 'F32', shape: [1], data_offsets: [0] } }, 4), /data_offsets/],
    ['offsets in reverse', file({ a: f32(4, 0, [1]) }, 4), /bytes 4 to 0/],
    ['data beyond the file', file({ a: f32(0, 8) }, 4), /truncated/],
    ['a wrong byte count', file({ a: f32(0, 8, [3]) }, 8), /needs 12 bytes but has 8/],
    ['overlapping tensors', file({ a: f32(0, 8), b: f32(4, 12) }, 12), /inside another tensor/],
    ['two tensors in one place', file({ a: f32(0, 8), b: f32(0, 8) }, 8), /inside another tensor/],
    ['a gap', file({ a: f32(0, 4), b: f32(8, 12) }, 12), /after a gap/],
    ['bytes of no tensor', file({ a: f32(0, 4) }, 6), /2 bytes at its end/],
    ['a name twice', file('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), /"a" twice/],
  ];
  it.each(cases)('%s', (_, bytes, message) => {
    const read = (): unknown => readSafetensors(bytes, 'weights/some.safetensors');
    expect(read).toThrow(InputError);
    expect(read).toThrow(message);
    expect(read).toThrow(/^weights\/some\.safetensors is not a usable safetensors file/);
  });

  it('any changed byte or truncation gives a valid structure or an InputError, nothing else', () => {
    const damaged = fc.record({ contents: anyFile, at: fc.nat(), value: fc.integer({ min: 0, max: 255 }), cut: fc.boolean() });
    fc.assert(
      fc.property(damaged, ({ contents, at, value, cut }) => {
        let bytes: Uint8Array = writeSafetensors(contents.tensors, contents.metadata ?? undefined);
        const position = at % bytes.length;
        if (cut) bytes = bytes.subarray(0, position);
        else bytes[position] = value;
        try {
          for (const { dtype, shape, data } of readSafetensors(bytes).tensors.values()) {
            expect(data.length).toBe(shape.reduce((a, b) => a * b, 1) * sizes[dtype]);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('values', () => {
  it('widens every half float exactly', () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const wide = float16ToFloat32(all);
    for (let bits = 0; bits < 65536; bits++) {
      const exponent = (bits >> 10) & 31;
      const mantissa = bits & 1023;
      const sign = bits >> 15 ? -1 : 1;
      let expected = sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
      if (exponent === 0) expected = sign * mantissa * 2 ** -24;
      if (exponent === 31) expected = mantissa ? NaN : sign * Infinity;
      if (!Object.is(wide[bits], expected)) expect.fail(`0x${bits.toString(16)}: ${wide[bits]}, expected ${expected}`);
    }
    // And back: every value that a half holds is itself its nearest half.
    expect(float32ToFloat16(wide).filter((bits, i) => bits !== i && (i & 0x7c00) !== 0x7c00)).toHaveLength(0);
    expect(float32ToFloat16(new Float32Array([Infinity, -Infinity, NaN]))).toEqual(new Uint16Array([0x7c00, 0xfc00, 0x7e00]));
  });

  it('rounds to the nearest half float, ties to even', () => {
    const finite = fc.float({ noNaN: true, noDefaultInfinity: true, min: -70000, max: 70000 });
    const grid = [...float16ToFloat32(Uint16Array.from({ length: 0x7c00 }, (_, i) => i)), 65536];
    fc.assert(
      fc.property(finite, (value) => {
        const bits = float32ToFloat16(new Float32Array([value]))[0]!;
        const index = bits & 0x7fff;
        const magnitude = Math.abs(value);
        const error = Math.abs(grid[Math.min(index, 0x7c00)]! - magnitude);
        expect(bits >> 15).toBe(Object.is(value, -0) || value < 0 ? 1 : 0);
        if (magnitude >= 65536) expect(index).toBe(0x7c00);
        else for (const neighbour of [index - 1, index + 1]) {
          if (grid[neighbour] === undefined) continue;
          const other = Math.abs(grid[neighbour]! - magnitude);
          expect(error < other || (error === other && index % 2 === 0)).toBe(true);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('reads floats of every width', () => {
    expect([...tensorToFloat32(entry('F64', new Float64Array([0.1, 1e300])))]).toEqual([Math.fround(0.1), Infinity]);
    expect([...tensorToFloat32(entry('BF16', new Uint16Array([0x3f80, 0xc000, 0x0001, 0xff80, 0x7fc0])))]).toEqual([1, -2, 2 ** -133, -Infinity, NaN]);
    expect([...tensorToFloat32(entry('F16', new Uint16Array([0x0001, 0x8000, 0x7bff])))]).toEqual([2 ** -24, -0, 65504]);
    expect(() => tensorToFloat32(entry('I32', new Int32Array(1)), 'x')).toThrow(/x has the dtype I32/);
  });

  it('reads integers of every width and refuses what does not fit', () => {
    expect([...tensorToInt32(entry('I32', new Int32Array([-5, 7])))]).toEqual([-5, 7]);
    expect([...tensorToInt32(entry('I16', new Int16Array([-5])))]).toEqual([-5]);
    expect([...tensorToInt32(entry('U16', new Uint16Array([65535])))]).toEqual([65535]);
    expect([...tensorToInt32(entry('I8', new Int8Array([-1])))]).toEqual([-1]);
    expect([...tensorToInt32(entry('U8', new Uint8Array([255])))]).toEqual([255]);
    expect([...tensorToInt32(entry('I64', new BigInt64Array([-9n])))]).toEqual([-9]);
    expect([...tensorToInt32(entry('U64', new BigUint64Array([9n])))]).toEqual([9]);
    expect(() => tensorToInt32(entry('I64', new BigInt64Array([1n << 40n])))).toThrow(InputError);
    expect(() => tensorToInt32(entry('U32', new Uint32Array([0x80000000])))).toThrow(InputError);
    expect(() => tensorToInt32(entry('F32', new Float32Array(1)))).toThrow(InputError);
    expect([...tensorToUint8(entry('BOOL', new Uint8Array([1, 0])))]).toEqual([1, 0]);
    expect(() => tensorToUint8(entry('I8', new Int8Array(1)))).toThrow(InputError);
  });

  it('copies: changing the result leaves the file alone', () => {
    const source = entry('F32', new Float32Array([1]));
    tensorToFloat32(source)[0] = 5;
    expect([...tensorToFloat32(source)]).toEqual([1]);
  });
});
