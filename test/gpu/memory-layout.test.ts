// Persistent memory's layout: every tensor can be bound alone, none overlap, and no buffer exceeds one binding.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { AllocationError } from '../../src/errors.ts';
import { layoutMemory } from '../../src/gpu/memory.ts';

it('is aligned, in order, free of overlap and within the limit', () => {
  fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 40 }), fc.constantFrom(16, 64, 256), (sizes, alignment) => {
    const maxBytes = 8192;
    const { places, buffers } = layoutMemory(sizes.map((bytes, i) => [`t${i}`, bytes] as const), { alignment, maxBytes });
    expect(places.map((p) => p.name)).toEqual(sizes.map((_, i) => `t${i}`));
    const ends = buffers.map(() => 0);
    let last = 0;
    places.forEach((place, i) => {
      expect(place.bytes).toBe(sizes[i]);
      expect(place.offset % alignment).toBe(0);
      expect(place.offset).toBeGreaterThanOrEqual(ends[place.buffer]!);
      expect(place.buffer).toBeGreaterThanOrEqual(last);
      last = place.buffer;
      // Kernels may load the last vec4 whole.
      ends[place.buffer] = place.offset + Math.ceil(place.bytes / 16) * 16;
    });
    buffers.forEach((bytes, b) => {
      expect(bytes).toBeGreaterThanOrEqual(ends[b]!);
      expect(bytes).toBeLessThanOrEqual(maxBytes);
    });
  }));
});

it('refuses a tensor larger than one buffer, with the figures', () => {
  expect(() => layoutMemory([['small', 16], ['large', 5000]], { alignment: 256, maxBytes: 4096 })).toThrow(AllocationError);
  expect(() => layoutMemory([['large', 5000]], { alignment: 256, maxBytes: 4096 })).toThrow(/large needs 5000 bytes.*4096/);
});
