// Colours depend on the value and the fixed scale alone; a good image stays as it is, a defect glows where it is.
import { describe, expect, it } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { UsageError } from '../../src/errors.ts';
import { colorize, FOUND_OUTLINE, heatColour, heatOf, heatOpacity, overlay } from '../../src/inspect/heatmap.ts';

const scale = { low: 0.1, high: 0.5 };
const size = 40;
const grey: RasterImage = { width: 80, height: 60, channels: 3, data: new Uint8Array(80 * 60 * 3).fill(128) };
const pixel = (image: RasterImage, x: number, y: number) => [...image.data.subarray((y * image.width + x) * image.channels, (y * image.width + x) * image.channels + 3)];
const options = { mapWidth: size, mapHeight: size, placement: { x: 8, y: 6, scaleX: 1.6, scaleY: 1.2 }, scale };

function hotSquare(): Float32Array {
  const map = new Float32Array(size * size).fill(0.1);
  for (let y = 10; y < 20; y++) map.fill(0.5, y * size + 10, y * size + 20);
  return map;
}

describe('colours', () => {
  it('follow matplotlib\'s inferno: red and green within 4 of 255, blue within 9', () => {
    const table: Record<number, number[]> = {
      0: [0, 0, 4], 32: [33, 12, 74], 64: [87, 16, 110], 96: [138, 34, 106], 128: [188, 55, 84],
      160: [228, 90, 49], 192: [249, 142, 9], 224: [249, 203, 53], 255: [252, 255, 164],
    };
    for (const [entry, expected] of Object.entries(table)) {
      heatColour(Number(entry) / 255).forEach((value, c) => expect(Math.abs(value - expected[c]!), entry).toBeLessThanOrEqual([4, 4, 9][c]!));
    }
  });

  it('get brighter with heat throughout', () => {
    const luma = (heat: number) => { const [r, g, b] = heatColour(heat); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    for (let i = 1; i <= 64; i++) expect(luma(i / 64)).toBeGreaterThan(luma((i - 1) / 64) - 0.5);
  });

  it('are clamped to the scale; nothing shows below a tenth of it, and the pixel threshold, at a fifth, shows faintly', () => {
    expect([heatOf(-5, scale), heatOf(7, scale)]).toEqual([0, 1]);
    expect(heatOf(0.3, scale)).toBeCloseTo(0.5, 12);
    expect(heatOpacity(0.1)).toBe(0);
    expect(heatOpacity(0.4)).toBe(1);
    expect(heatOpacity(0.2)).toBeCloseTo(7 / 27, 6);
  });
});

describe('colorize', () => {
  it('gives one colour to one value, whatever else is in the map', () => {
    const alone = colorize(Float32Array.of(0.3), 1, 1, scale);
    const among = colorize(Float32Array.of(0.0, 0.3, 9.0, 0.2), 2, 2, scale);
    expect([...among.subarray(4, 8)]).toEqual([...alone]);
    expect(alone[3]).toBe(255);
    expect([...colorize(Float32Array.of(0.1, 0.5), 2, 1, scale, { fade: true })].filter((_, i) => i % 4 === 3)).toEqual([0, 255]);
  });

  it('refuses wrong sizes and scales', () => {
    expect(() => colorize(new Float32Array(3), 2, 2, scale)).toThrow(UsageError);
    expect(() => colorize(new Float32Array(4), 2, 2, { low: 1, high: 1 })).toThrow(/low < high/);
    expect(() => colorize(new Float32Array(4), 2, 2, { low: NaN, high: 1 })).toThrow(UsageError);
  });
});

describe('overlay', () => {
  it('leaves an image of normal pixels exactly as it is', () => {
    const map = new Float32Array(size * size).fill(0.1 + 0.1 * 0.4 - 1e-6);
    const result = overlay(grey, map, options);
    expect(result.data).toEqual(grey.data);
    expect(result.data).not.toBe(grey.data);
  });

  it('glows where the defect is, in the picture\'s own pixels, and not in the border that was cropped off', () => {
    const result = overlay(grey, hotSquare(), options);
    expect([result.width, result.height, result.channels]).toEqual([80, 60, 3]);
    // Crop: x from 8, 1.6 a map pixel; y from 6, 1.2 a map pixel. The square's middle is at map 15.
    const [r, g, b] = pixel(result, 8 + 24, 6 + 18);
    const hot = heatColour(1);
    [r, g, b].forEach((value, c) => expect(value).toBe(Math.round(128 * 0.25 + hot[c]! * 0.75)));
    expect(pixel(result, 8 + 24, 6 + 40)).toEqual([128, 128, 128]);
    expect(pixel(result, 2, 24)).toEqual([128, 128, 128]);
    const everywhere = overlay(grey, new Float32Array(size * size).fill(1), options);
    expect(pixel(everywhere, 7, 30)).toEqual([128, 128, 128]);
    expect(pixel(everywhere, 8, 30)).not.toEqual([128, 128, 128]);
    expect(pixel(everywhere, 71, 30)).not.toEqual([128, 128, 128]);
    expect(pixel(everywhere, 72, 30)).toEqual([128, 128, 128]);
    expect(pixel(everywhere, 30, 5)).toEqual([128, 128, 128]);
  });

  it('outlines a mask on its border and leaves its inside', () => {
    const mask = Uint8Array.from(hotSquare(), (value) => (value > 0.3 ? 1 : 0));
    const result = overlay(grey, hotSquare(), { ...options, opacity: 0, outlines: [{ mask, colour: FOUND_OUTLINE }] });
    const coloured = [];
    for (let y = 0; y < 60; y++) for (let x = 0; x < 80; x++) if (pixel(result, x, y).join() === FOUND_OUTLINE.join()) coloured.push([x, y]);
    // Source square: x 24 to 40, y 18 to 30.
    expect(Math.min(...coloured.map(([x]) => x!))).toBe(24);
    expect(Math.max(...coloured.map(([x]) => x!))).toBe(39);
    expect(Math.min(...coloured.map(([, y]) => y!))).toBe(18);
    expect(Math.max(...coloured.map(([, y]) => y!))).toBe(29);
    expect(pixel(result, 32, 24)).toEqual([128, 128, 128]);
    expect(coloured.length).toBeLessThan(60);
  });

  it('takes grey and RGBA pictures', () => {
    const one = overlay({ width: 2, height: 1, channels: 1, data: Uint8Array.of(7, 9) }, new Float32Array(4), { mapWidth: 2, mapHeight: 2, placement: { x: 0, y: 0, scaleX: 1, scaleY: 0.5 }, scale });
    expect([...one.data]).toEqual([7, 7, 7, 9, 9, 9]);
    const four = overlay({ width: 1, height: 1, channels: 4, data: Uint8Array.of(1, 2, 3, 0) }, new Float32Array(4), { mapWidth: 2, mapHeight: 2, placement: { x: 0, y: 0, scaleX: 0.5, scaleY: 0.5 }, scale });
    expect([...four.data]).toEqual([1, 2, 3]);
  });

  it('refuses a map of another size and an opacity outside [0, 1]', () => {
    expect(() => overlay(grey, new Float32Array(3), options)).toThrow(UsageError);
    expect(() => overlay(grey, hotSquare(), { ...options, opacity: 2 })).toThrow(UsageError);
  });
});
