/** Model tensors on the GPU: values uploaded under the names that the graphs' parameters have. */
import { UsageError } from '../errors.ts';
import type { GpuContext } from '../gpu/context.ts';
import { DeviceMemory } from '../gpu/memory.ts';
import { sizeOf, type Shape } from '../graph/tensor.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import type { DetectorConfig } from './config.ts';
import { encoderParameters, encoderPrefix, encoderShapes } from './encoder.ts';
import { trainablePrefix, trainableShapes } from './parameters.ts';

/** Uploads one value for each tensor of `shapes`, called `prefix` + its name. */
export async function upload(context: GpuContext, prefix: string, shapes: ReadonlyMap<string, Shape>, values: ReadonlyMap<string, Float32Array>): Promise<DeviceMemory> {
  const memory = await DeviceMemory.allocate(context, prefix, [...shapes].map(([name, shape]) => [prefix + name, sizeOf(shape) * 4] as const));
  try {
    for (const name of shapes.keys()) {
      const value = values.get(name);
      if (!value) throw new UsageError(`There is no value for ${prefix}${name}.`);
      memory.write(prefix + name, value);
    }
  } catch (error) {
    memory.dispose();
    throw error;
  }
  return memory;
}

export function uploadEncoder(context: GpuContext, weights: EncoderWeights, config: DetectorConfig): Promise<DeviceMemory> {
  return upload(context, encoderPrefix, encoderShapes(config), encoderParameters(weights, config));
}

export function uploadTrainables(context: GpuContext, values: ReadonlyMap<string, Float32Array>, config: DetectorConfig): Promise<DeviceMemory> {
  return upload(context, trainablePrefix, trainableShapes(config), values);
}
