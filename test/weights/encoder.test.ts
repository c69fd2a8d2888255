import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { encoderTensorShapes, loadEncoderWeights, sha256Hex } from '../../src/weights/encoder.ts';
import type { EncoderArchitecture, LoadEncoderOptions } from '../../src/weights/encoder.ts';
import { writeSafetensors } from '../../src/weights/safetensors.ts';
import { describeGolden, goldenFolder, goldenJson, readGolden } from '../support/golden.ts';
import { asSafetensors, smallArchitecture, smallEncoder } from './fixtures.ts';

const heads: LoadEncoderOptions = { file: 'some.safetensors', architecture: { numHeads: 2 } };

describe('loading an encoder', () => {
  it('infers the architecture and gives back every tensor', async () => {
    for (const architecture of [
      smallArchitecture,
      { ...smallArchitecture, numRegisters: 0, layerScale: false, mlpRatio: 2.5, positionGrid: [3, 3] as const },
    ]) {
      const expected = smallEncoder(architecture);
      const weights = await loadEncoderWeights(asSafetensors(expected), heads);
      expect(weights.architecture).toEqual(architecture);
      expect([...weights.tensors.keys()].sort()).toEqual([...expected.keys()].sort());
      for (const [name, { data }] of expected) expect(weights.tensors.get(name)!.data).toEqual(data);
    }
  });

  it('is identified by the SHA-256 of the file', async () => {
    expect(await sha256Hex(new TextEncoder().encode('abc'))).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    const bytes = asSafetensors(smallEncoder());
    const weights = await loadEncoderWeights(bytes, { ...heads, name: 'mine' });
    expect(weights.sha256).toBe(await sha256Hex(bytes));
    expect(weights.name).toBe('mine');
  });

  it('accepts a prefix, other parts of a model beside the encoder, and the optional tensors', async () => {
    const tensors = smallEncoder();
    tensors.set('embeddings.mask_token', { shape: [1, 8], data: new Float32Array(8) });
    tensors.set('layernorm.weight', { shape: [8], data: new Float32Array(8).fill(1) });
    tensors.set('layernorm.bias', { shape: [8], data: new Float32Array(8) });
    const prefixed = [...tensors].map(([name, tensor]) => [`model.backbone.${name}`, tensor] as [string, typeof tensor]);
    prefixed.push(['classifier.weight', { shape: [2], data: new Float32Array([NaN, 1]) }]);
    const weights = await loadEncoderWeights(asSafetensors(prefixed), heads);
    expect([...weights.tensors.keys()].sort()).toEqual([...tensors.keys()].sort());
  });

  it('reads half precision', async () => {
    const tensors = [...smallEncoder()].map(([name, { shape, data }]) => [name, { dtype: 'BF16', shape, data: new Uint16Array(data.length).fill(0x3f80) }] as const);
    const weights = await loadEncoderWeights(writeSafetensors(tensors), heads);
    expect(new Set(weights.tensors.get('encoder.layer.0.mlp.fc1.weight')!.data)).toEqual(new Set([1]));
  });

  it('takes the number of heads from the option, the metadata, or width / 64', async () => {
    const wide: EncoderArchitecture = { ...smallArchitecture, width: 128, depth: 1, mlpRatio: 0.5 };
    const bytes = asSafetensors(smallEncoder(wide));
    expect((await loadEncoderWeights(bytes)).architecture.numHeads).toBe(2);
    expect((await loadEncoderWeights(bytes, { architecture: { numHeads: 8 } })).architecture.numHeads).toBe(8);
    const told = asSafetensors(smallEncoder(wide), '', { num_heads: '4' });
    expect((await loadEncoderWeights(told)).architecture.numHeads).toBe(4);
  });

  it('takes a position grid that is not square from the option', async () => {
    const architecture = { ...smallArchitecture, positionGrid: [2, 5] as const };
    const bytes = asSafetensors(smallEncoder(architecture));
    expect((await loadEncoderWeights(bytes, { architecture: { numHeads: 2, positionGrid: [2, 5] } })).architecture).toEqual(architecture);
    await expect(loadEncoderWeights(bytes, heads)).rejects.toThrow(/10 positions .* not a square grid/);
    await expect(loadEncoderWeights(bytes, { architecture: { numHeads: 2, positionGrid: [3, 5] } })).rejects.toThrow(/expected 3 x 5/);
  });

  it('names each missing tensor', async () => {
    for (const name of encoderTensorShapes(smallArchitecture).keys()) {
      const tensors = smallEncoder();
      tensors.delete(name);
      if (name === 'embeddings.register_tokens') continue; // without them it is an encoder without registers
      const error: unknown = await loadEncoderWeights(asSafetensors(tensors), heads).catch((reason: unknown) => reason);
      expect(error, name).toBeInstanceOf(InputError);
      expect((error as Error).message).toContain('some.safetensors');
      // Without the first block's factors, those of the other blocks are what does not belong.
      expect((error as Error).message).toContain(name.includes('layer.0.layer_scale1') ? 'layer_scale' : name);
    }
  });

  it.each([
    ['a wrong shape', (tensors: ReturnType<typeof smallEncoder>) => tensors.set('encoder.layer.1.mlp.fc2.bias', { shape: [7], data: new Float32Array(7) }), /"encoder.layer.1.mlp.fc2.bias" has the shape \[7\], expected \[8\]/],
    ['a transposed matrix', (tensors) => { tensors.get('encoder.layer.1.mlp.fc1.weight')!.shape.reverse(); }, /fc1.weight" has the shape \[8, 32\], expected \[32, 8\]/],
    ['NaN', (tensors) => { tensors.get('encoder.layer.1.norm1.bias')!.data[2] = NaN; }, /value 2 of tensor "encoder.layer.1.norm1.bias" is NaN/],
    ['infinity', (tensors) => { tensors.get('embeddings.cls_token')!.data[0] = -Infinity; }, /"embeddings.cls_token" is -Infinity/],
    ['SwiGLU', (tensors) => tensors.set('encoder.layer.0.mlp.weights_in.weight', { shape: [1], data: new Float32Array(1) }), /SwiGLU/],
    ['an unknown part in a block', (tensors) => tensors.set('encoder.layer.0.attention.q_norm.weight', { shape: [1], data: new Float32Array(1) }), /"encoder.layer.0.attention.q_norm.weight", which a DINOv2 encoder/],
    ['a missing block', (tensors) => { for (const name of tensors.keys()) if (name.startsWith('encoder.layer.0.')) tensors.delete(name); }, /up to encoder.layer.1, but encoder.layer.0 is missing/],
    ['no blocks', (tensors) => { for (const name of tensors.keys()) if (name.startsWith('encoder.')) tensors.delete(name); }, /no tensor "encoder.layer.0/],
    ['two encoders', (tensors) => tensors.set('teacher.embeddings.cls_token', { shape: [1], data: new Float32Array(1) }), /more than one encoder/],
    ['another model', (tensors) => { tensors.clear(); tensors.set('blocks.0.attn.qkv.weight', { shape: [1], data: new Float32Array(1) }); }, /no tensor "embeddings.cls_token".*original DINOv2/],
  ] as [string, (tensors: ReturnType<typeof smallEncoder>) => void, RegExp][])('refuses %s', async (_, damage, message) => {
    const tensors = smallEncoder();
    damage(tensors);
    const error: unknown = await loadEncoderWeights(asSafetensors(tensors), heads).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).message).toMatch(message);
    expect((error as InputError).file).toBe('some.safetensors');
  });

  it('refuses heads that do not divide the width, and an architecture other than the expected one', async () => {
    const bytes = asSafetensors(smallEncoder());
    await expect(loadEncoderWeights(bytes)).rejects.toThrow(/0.125 attention heads do not divide the width 8/);
    await expect(loadEncoderWeights(bytes, { architecture: { numHeads: 3 } })).rejects.toThrow(/3 attention heads/);
    await expect(loadEncoderWeights(bytes, { architecture: { numHeads: 2, depth: 12 } })).rejects.toThrow(/its depth is 2, expected 12/);
  });
});

describeGolden('encoders', () => {
  it.each(['tiny', 'odd'])('%s', async (which) => {
    const config = goldenJson(`${which}/config.json`);
    const { architecture } = await loadEncoderWeights(readGolden(`${which}/encoder.safetensors`), { architecture: { numHeads: config.heads } });
    expect(architecture).toEqual({
      width: config.C, depth: config.depth, numHeads: config.heads, patchSize: config.patch, numRegisters: config.registers,
      positionGrid: [config.pos_grid, config.pos_grid], mlpRatio: config.mlp_ratio, layerScale: true,
    });
  });

  const small = `${goldenFolder()}/../weights/dinov2_vits14.safetensors`;
  if (existsSync(small)) {
    it('DINOv2 ViT-S/14', async () => {
      const { architecture, tensors } = await loadEncoderWeights(readFileSync(small));
      expect(architecture).toEqual({ width: 384, depth: 12, numHeads: 6, patchSize: 14, numRegisters: 0, positionGrid: [37, 37], mlpRatio: 4, layerScale: true });
      expect(tensors.size).toBe(223);
    });
  }
});
