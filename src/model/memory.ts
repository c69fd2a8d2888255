/** Model tensors on the GPU: values uploaded under the names that the graphs' parameters have. */
import { AdapterError, UsageError } from '../errors.ts';
import type { GpuContext } from '../gpu/context.ts';
import { DeviceMemory, type MemoryItem } from '../gpu/memory.ts';
import { dataBytesOf } from '../graph/tensor.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { float32ToFloat16 } from '../weights/float16.ts';
import type { DetectorConfig } from './config.ts';
import { encoderParameters, encoderPrefix, encoderShapes } from './encoder.ts';
import { dtypeAt, trainableItems, trainablePrefix, type Precision } from './parameters.ts';

/** Uploads a value for each tensor of the items, whose names are `prefix` + those of the values. */
async function upload(context: GpuContext, prefix: string, items: readonly MemoryItem[], values: ReadonlyMap<string, Float32Array>, precision: Precision): Promise<DeviceMemory> {
  const memory = await DeviceMemory.allocate(context, prefix, items);
  try {
    for (const name of memory.names) {
      const value = values.get(name.slice(prefix.length));
      if (!value) throw new UsageError(`There is no value for ${name}.`);
      memory.write(name, dtypeAt(precision, name.slice(prefix.length)) === 'f16' ? float32ToFloat16(value) : value);
    }
  } catch (error) {
    memory.dispose();
    throw error;
  }
  return memory;
}

export function uploadEncoder(context: GpuContext, weights: EncoderWeights, config: DetectorConfig, precision: Precision = 'f32'): Promise<DeviceMemory> {
  const items = [...encoderShapes(config)].map(([name, shape]): MemoryItem => [encoderPrefix + name, dataBytesOf({ shape, dtype: dtypeAt(precision, name) })]);
  return upload(context, encoderPrefix, items, encoderParameters(weights, config), precision);
}

export function uploadTrainables(context: GpuContext, values: ReadonlyMap<string, Float32Array>, config: DetectorConfig, precision: Precision = 'f32'): Promise<DeviceMemory> {
  return upload(context, trainablePrefix, trainableItems(config, precision), values, precision);
}

/** @throws AdapterError where the adapter can't read f16 */
export function checkPrecision({ target, adapter }: GpuContext, precision: Precision | undefined): void {
  if (precision !== 'f16' || target.features.has('shader-f16')) return;
  throw new AdapterError('adapter-too-small', `The adapter ${adapter.name} has no shader-f16, which weights in f16 need: use precision f32.`);
}
