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
  /** The fewest lanes that a subgroup may have. */
  readonly subgroupSize?: number | undefined;
  /** 'swiftshader' and 'lavapipe' are CPUs, where barriers and workgroup memory cost and occupancy is nothing. */
  readonly family: 'swiftshader' | 'lavapipe' | 'gpu';
  /** Kernel variants that were measured to be the fastest on this device, by kernel key; the family's choice elsewhere. It grows. */
  readonly tuning?: Map<string, string>;
  /** The GPU's matrix units, where a program may use them. Which products do is a rule, not tuned: they round otherwise than the plain kernels. */
  readonly subgroupMatrix?: SubgroupMatrix;
}

/** Not yet among the types of WebGPU. */
export const subgroupMatrixFeature = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;

/** Matrix units as Chromium's experimental subgroup matrices offer them: [M, K] times [K, N], summed in f32. */
export interface SubgroupMatrix {
  readonly config: { readonly componentType: 'f32' | 'f16'; readonly M: number; readonly N: number; readonly K: number };
  /** The largest subgroup that the adapter makes; a workgroup must be a multiple of it. */
  readonly subgroupSize: number;
  /** Where WGSL says in which order a matrix lies in memory: in a template parameter (Node's Dawn 0.6.2) or an argument (Chromium 147). */
  readonly spelling: 'template' | 'argument';
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
