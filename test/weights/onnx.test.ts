import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { convertOnnxEncoder } from '../../src/weights/convert.ts';
import { loadEncoderWeights } from '../../src/weights/encoder.ts';
import { encoderTensorsFromOnnx } from '../../src/weights/names.ts';
import { readOnnx } from '../../src/weights/onnx.ts';
import { readSafetensors, tensorToFloat32, tensorToInt32 } from '../../src/weights/safetensors.ts';
import { asOnnx, rawFloats, smallArchitecture, smallEncoder, writeOnnx } from './fixtures.ts';

const { numHeads } = smallArchitecture;

describe('reading ONNX', () => {
  it('reads initialisers in all the ways that ONNX stores them', async () => {
    const bytes = writeOnnx([
      { name: 'raw', dims: [2, 2], raw: rawFloats([1, 2, 3, 4.5]) },
      { name: 'floats', dims: [3], floats: [0.5, -1, 2] },
      { name: 'scalar', dims: [], floats: [7] },
      { name: 'halves', dims: [2], dataType: 10, int32s: [0x3c00, 0xc000] },
      { name: 'doubles', dims: [1], dataType: 11, doubles: [0.25] },
      { name: 'int64s', dims: [2], dataType: 7, int64s: [-3, 4] },
      { name: 'int32s', dims: [2], dataType: 6, int32s: [-1, 5] },
      { name: 'uint32s', dims: [1], dataType: 12, uint64s: [4000000000] },
      { name: 'empty', dims: [0, 3], floats: [] },
    ]);
    const { initializers } = await readOnnx(bytes);
    const floats = (name: string): number[] => [...tensorToFloat32(initializers.get(name)!)];
    const ints = (name: string): number[] => [...tensorToInt32(initializers.get(name)!)];
    expect(initializers.get('raw')!.shape).toEqual([2, 2]);
    expect(floats('raw')).toEqual([1, 2, 3, 4.5]);
    expect(floats('floats')).toEqual([0.5, -1, 2]);
    expect(floats('scalar')).toEqual([7]);
    expect(floats('halves')).toEqual([1, -2]);
    expect(floats('doubles')).toEqual([0.25]);
    expect(ints('int64s')).toEqual([-3, 4]);
    expect(ints('int32s')).toEqual([-1, 5]);
    expect(new Uint32Array(initializers.get('uint32s')!.data.slice().buffer)[0]).toBe(4000000000);
    expect(initializers.get('empty')!.shape).toEqual([0, 3]);
  });

  it('reads from a buffer that it does not own from the start', async () => {
    const bytes = writeOnnx([{ name: 'w', dims: [2], floats: [1, 2] }]);
    const moved = new Uint8Array(bytes.length + 8);
    moved.set(bytes, 5);
    const { initializers } = await readOnnx(moved.subarray(5, 5 + bytes.length));
    expect([...tensorToFloat32(initializers.get('w')!)]).toEqual([1, 2]);
  });

  it.each([
    ['external data', writeOnnx([{ name: 'w', dims: [1], external: true }]), /"w" is stored in another file/],
    ['too few values', writeOnnx([{ name: 'w', dims: [3], floats: [1] }]), /needs 3 values but has 1/],
    ['too few raw bytes', writeOnnx([{ name: 'w', dims: [3], raw: rawFloats([1]) }]), /needs 12 bytes but has 4/],
    ['a negative size', writeOnnx([{ name: 'w', dims: [-3], floats: [] }]), /impossible shape \[-3\]/],
    ['strings', writeOnnx([{ name: 'w', dims: [1], dataType: 8 }]), /data type 8/],
    ['a name twice', writeOnnx([{ name: 'w', dims: [], floats: [1] }, { name: 'w', dims: [], floats: [1] }]), /two initialisers named "w"/],
    ['integers that JavaScript can not hold', writeOnnx([{ name: 'w', dims: [1], dataType: 7, int64s: [2 ** 60] }]), /beyond 2\^53/],
    ['a node without output', writeOnnx([], [{ operator: 'Identity', inputs: ['a'], outputs: [] }]), /Identity node has no output/],
    ['nothing', new Uint8Array(), /holds 0 graphs/],
    ['text', new TextEncoder().encode('<!DOCTYPE html><html><body>Sign in</body></html>'), /not a usable ONNX model/],
    ['a truncated file', writeOnnx([{ name: 'w', dims: [9], raw: rawFloats(Array(9).fill(1)) }]).subarray(0, 50), /truncated/],
  ])('refuses %s', async (_, bytes, message) => {
    const error: unknown = await readOnnx(bytes, 'some.onnx').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InputError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toMatch(/^some\.onnx /);
  });

  it('any changed byte or truncation gives a valid structure or an InputError, nothing else', async () => {
    const whole = asOnnx(smallEncoder());
    const small = writeOnnx(
      [
        { name: 'a', dims: [2, 1], floats: [1, 2] },
        { name: 'b', dims: [2], dataType: 7, int64s: [300, -1] },
        { name: 'c', dims: [1], raw: rawFloats([3]) },
      ],
      [{ operator: 'MatMul', inputs: ['x', 'a'], outputs: ['y'] }],
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(whole, small), fc.nat(), fc.integer({ min: 0, max: 255 }), fc.boolean(), async (file, at, value, cut) => {
        const bytes = cut ? file.slice(0, at % file.length) : file.slice();
        if (!cut) bytes[at % file.length] = value;
        try {
          for (const { shape, data } of (await readOnnx(bytes)).initializers.values()) {
            expect(data.length % Math.max(1, shape.reduce((a, b) => a * b, 1))).toBe(0);
          }
          await convertOnnxEncoder(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('an encoder out of ONNX', () => {
  it('recovers every tensor: folded matrices, split positions, shared parameters', async () => {
    const expected = smallEncoder();
    const bytes = await convertOnnxEncoder(asOnnx(expected));
    const { tensors, architecture } = await loadEncoderWeights(bytes, { architecture: { numHeads } });
    expect(architecture).toEqual(smallArchitecture);
    for (const [name, { shape, data }] of expected) {
      expect(tensors.get(name)?.shape, name).toEqual(shape);
      expect(tensors.get(name)?.data, name).toEqual(data);
    }
    expect([...tensors.keys()].filter((name) => !expected.has(name))).toEqual(['embeddings.mask_token']);
    expect(tensors.get('embeddings.mask_token')!.data).toEqual(new Float32Array(8));
  });

  it('leaves the rest of the graph out and writes the same bytes again', async () => {
    const onnx = asOnnx(smallEncoder());
    const bytes = await convertOnnxEncoder(onnx);
    expect(await convertOnnxEncoder(onnx)).toEqual(bytes);
    const { tensors, metadata } = readSafetensors(bytes);
    expect([...tensors.keys()].some((name) => name.includes('decoder') || name.includes('onnx'))).toBe(false);
    expect([...tensors.values()].every(({ dtype }) => dtype === 'F16')).toBe(true);
    expect(metadata).toEqual({ format: 'pt' });
  });

  it('refuses a graph without an encoder, without positions, or with weights beyond half precision', async () => {
    await expect(convertOnnxEncoder(writeOnnx([{ name: 'w', dims: [1], floats: [1] }]), 'm.onnx')).rejects.toThrow(/m\.onnx has no tensor "embeddings.cls_token".* found w\./);
    const graph = await readOnnx(asOnnx(smallEncoder()));
    const nodes = graph.nodes.filter(({ operator }) => operator !== 'Resize');
    expect(() => encoderTensorsFromOnnx({ ...graph, nodes }, 'm.onnx')).toThrow(/m\.onnx has neither an initialiser "embeddings.position_embeddings"/);
    const large = smallEncoder();
    large.get('embeddings.cls_token')!.data[3] = 70000;
    await expect(convertOnnxEncoder(asOnnx(large), 'm.onnx')).rejects.toThrow(/weight 3 of "embeddings.cls_token" is 70000/);
  });
});
