/**
 * Turns an ONNX export of a DINOv2 encoder into the one file format that encoders are used from: safetensors, Hugging
 * Face names, half precision. The bytes depend on nothing but the weights, so the converted file's SHA-256, by which
 * a trained model recognises its encoder, is the same on every machine.
 */
import { InputError } from '../errors.ts';
import { float32ToFloat16 } from './float16.ts';
import { encoderTensorsFromOnnx } from './names.ts';
import { readOnnx } from './onnx.ts';
import { writeSafetensors } from './safetensors.ts';
import type { SafetensorsInput } from './safetensors.ts';

/**
 * Weights are rounded to float16 (as published encoders often are; for DINOv2 ViT-S it moves the features by 1e-3,
 * relative L2), which halves the file.
 * @param name what errors call the ONNX file
 * @returns the bytes of a safetensors file for {@link import('./encoder.ts').loadEncoderWeights}
 * @throws {InputError} when the bytes are not ONNX, hold no encoder, or a weight does not fit into float16
 */
export async function convertOnnxEncoder(bytes: Uint8Array, name = 'ONNX data'): Promise<Uint8Array<ArrayBuffer>> {
  const tensors: [string, SafetensorsInput][] = [];
  for (const [tensor, { shape, data }] of encoderTensorsFromOnnx(await readOnnx(bytes, name), name)) {
    const halves = float32ToFloat16(data);
    const outside = halves.findIndex((half) => (half & 0x7c00) === 0x7c00);
    if (outside >= 0) {
      throw new InputError(`${name}: weight ${outside} of "${tensor}" is ${data[outside]}, expected a number within ±65504.`, { file: name });
    }
    tensors.push([tensor, { dtype: 'F16', shape, data: halves }]);
  }
  return writeSafetensors(tensors, { format: 'pt' });
}
