import { readFileSync, statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { WeightsError } from '../../src/errors.ts';
import { DEFAULT_ENCODER, encoderCatalog, findEncoder } from '../../src/weights/catalog.ts';
import { loadEncoderWeights } from '../../src/weights/encoder.ts';

describe('the catalogue', () => {
  it('is what weights/catalog.json says (after a change of catalog.ts: npx vitest run test/weights/catalog.test.ts -u)', async () => {
    const text = `${JSON.stringify({ encoders: [...encoderCatalog.values()] }, null, 2)}\n`;
    await expect(text).toMatchFileSnapshot('../../weights/catalog.json');
  });

  it('knows the embedded encoder and DINOv2 in three sizes, with and without registers', () => {
    const sizes = ['small', 'base', 'large'];
    expect([...encoderCatalog.keys()].sort()).toEqual(
      [DEFAULT_ENCODER, ...sizes.map((size) => `dinov2-${size}`), ...sizes.map((size) => `dinov2-${size}-with-registers`)].sort(),
    );
    expect(findEncoder('dinov2-large-with-registers').architecture).toEqual({
      width: 1024, depth: 24, numHeads: 16, patchSize: 14, numRegisters: 4, positionGrid: [37, 37], mlpRatio: 4, layerScale: true,
    });
  });

  it.each([...encoderCatalog.values()])('$name is consistent', ({ name, architecture, taps, encoderGroups, licence, sources }) => {
    expect(encoderCatalog.get(name)!.name).toBe(name);
    expect(architecture.width / architecture.numHeads).toBe(64);
    expect(taps).toHaveLength(8);
    expect(taps.every((tap, i) => tap >= 0 && tap < architecture.depth && (i === 0 || tap > taps[i - 1]!))).toBe(true);
    expect(encoderGroups.flat()).toEqual(taps.map((_, i) => i));
    expect(licence).toBe('Apache-2.0');
    expect(sources.length).toBeGreaterThan(0);
    const hashes = sources.flatMap((source) => Object.entries(source).filter(([key]) => /sha256$/i.test(key)).map(([, hash]) => hash as string));
    for (const hash of hashes) expect(hash).toMatch(/^[0-9a-f]{64}$/);
  });

  it('describes the embedded file as it is', async () => {
    const { sources, architecture } = findEncoder(DEFAULT_ENCODER);
    const source = sources[0]!;
    if (source.kind !== 'embedded') throw new Error(`the default encoder's source is ${source.kind}`);
    const path = new URL(`../../${source.file}`, import.meta.url);
    expect(statSync(path).size).toBe(source.bytes);
    const weights = await loadEncoderWeights(readFileSync(path));
    expect(weights.sha256).toBe(source.sha256);
    expect(weights.architecture).toEqual(architecture);
  });

  it.each([
    ['dinov2-smal', 'dinov2-small'],
    ['dinov2_base', 'dinov2-base'],
    ['TINY', 'tiny'],
    ['dinov2-base-registers', 'dinov2-base-with-registers'],
  ])('suggests the nearest name: %s', (wrong, nearest) => {
    const find = (): unknown => findEncoder(wrong);
    expect(find).toThrow(WeightsError);
    expect(find).toThrow(`There is no encoder "${wrong}". Did you mean "${nearest}"? Known are tiny, dinov2-small`);
  });

  it('lists the names without a suggestion where none is near', () => {
    expect(() => findEncoder('resnet')).toThrow(/^There is no encoder "resnet"\. Known are/);
  });
});
