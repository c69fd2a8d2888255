/**
 * What kernels may rely on: limits and features of the adapter at hand, as plain data, so that plans can be made,
 * reported and tested without a GPU. `family` selects the kernel variants that measurement found best there.
 */
export interface Target {
  /** Largest range that one binding may cover, bytes. */
  readonly maxStorageBufferBindingSize: number;
  /** Largest buffer, bytes. */
  readonly maxBufferSize: number;
  readonly maxStorageBuffersPerShaderStage: number;
  readonly maxComputeInvocationsPerWorkgroup: number;
  readonly maxComputeWorkgroupStorageSize: number;
  readonly maxComputeWorkgroupsPerDimension: number;
  /** Alignment of a binding's offset, bytes. */
  readonly minStorageBufferOffsetAlignment: number;
  readonly features: ReadonlySet<string>;
  /** 'swiftshader' and 'lavapipe' are CPUs, where barriers and workgroup memory cost and occupancy is nothing. */
  readonly family: 'swiftshader' | 'lavapipe' | 'gpu';
  /** Kernel variants that were measured to be the fastest on this device, by kernel key; the family's choice elsewhere. It grows. */
  readonly tuning?: Map<string, string>;
}

/** The limits that every WebGPU implementation guarantees: what plans assume when no adapter is given. */
export const defaultTarget: Target = {
  maxStorageBufferBindingSize: 128 * 1024 * 1024,
  maxBufferSize: 256 * 1024 * 1024,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupsPerDimension: 65535,
  minStorageBufferOffsetAlignment: 256,
  features: new Set(),
  family: 'gpu',
};

/** Rounds `value` up to a multiple of `step`. */
export function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
