/** A small encoder with random weights, and drawn images: enough of a model to train and inspect in a second. */
import { Random } from '../../src/data/random.ts';
import type { ImageSource, RasterImage } from '../../src/data/image.ts';
import { InputError } from '../../src/errors.ts';
import { encoderTensorShapes, loadEncoderWeights, type EncoderArchitecture, type EncoderWeights } from '../../src/weights/encoder.ts';
import { writeSafetensors } from '../../src/weights/safetensors.ts';

export const smallArchitecture: EncoderArchitecture = {
  width: 32, depth: 4, numHeads: 2, patchSize: 14, numRegisters: 1, positionGrid: [4, 4], mlpRatio: 4, layerScale: true,
};

export function smallEncoder(seed = 'encoder', architecture = smallArchitecture): Promise<EncoderWeights> {
  const tensors = [...encoderTensorShapes(architecture)].map(([name, shape]) => {
    const random = new Random(`${seed}/${name}`);
    const isNorm = /norm\d\.weight$|lambda1$/.test(name);
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => (isNorm ? 1 : 0) + 0.1 * random.normal());
    return [name, { dtype: 'F32' as const, shape, data }] as const;
  });
  return loadEncoderWeights(writeSafetensors(tensors), { name: `small-${seed}`, architecture: { numHeads: architecture.numHeads } });
}

/** Waves and noise, different for each seed. */
export function drawnImage(seed: string, { width = 64, height = 64, channels = 3 }: { width?: number; height?: number; channels?: 1 | 3 | 4 } = {}): RasterImage {
  const random = new Random(seed);
  const phase = random.uniform(0, 6);
  const data = Uint8Array.from({ length: width * height * channels }, (_, i) => {
    const [c, pixel] = [i % channels, Math.floor(i / channels)];
    return 128 + 60 * Math.sin((pixel % width) / 5 + phase + c) * Math.cos(Math.floor(pixel / width) / 7) + random.uniform(-20, 20);
  });
  return { width, height, channels, data };
}

export function drawnSources(count: number, options?: Parameters<typeof drawnImage>[1]): ImageSource[] {
  return Array.from({ length: count }, (_, i) => ({ name: `image ${i}`, load: async () => drawnImage(`drawn ${i}`, options) }));
}

export function unreadableSource(name: string): ImageSource {
  return { name, load: async () => { throw new InputError(`${name}: not an image.`, { file: name }); } };
}
