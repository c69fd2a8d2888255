/**
 * inp-former-webgpu: trains and runs INP-Former, a visual anomaly detector, on WebGPU. This is the core, the same in
 * a browser and in Node; `inp-former-webgpu/browser` and `inp-former-webgpu/node` add what each platform brings. What few
 * pages need is apart, so that the others don't ship it: `inp-former-webgpu/evaluate`, `inp-former-webgpu/prototypes`,
 * `inp-former-webgpu/onnx` and `inp-former-webgpu/ablate`.
 *
 *   const engine = await Engine.create({ gpu: navigator.gpu });
 *   const { inspector, model } = await trainInspector(engine, { encoder, images });
 *   const { verdict, score, map } = await inspector.inspect(image);
 */
export { Engine, type EngineOptions } from './engine.ts';
export type { AutotuneOptions, TuningStore } from './graph/autotune.ts';
export type { AcquireOptions, AdapterReport } from './gpu/context.ts';
export * from './errors.ts';

// Inspection and training
export { Inspector, type InspectedTile, type Inspection, type InspectionMode, type InspectOptions, type InspectorOptions } from './inspect/inspector.ts';
export type { CategoryRecord, CoherenceKind, Framing, ModelMetadata, TrainingRecord } from './inspect/model-file.ts';
export { withThreshold } from './inspect/model-file.ts';
export type { PrototypeView } from './inspect/prototype-view.ts';
export type { TileOptions } from './inspect/tiles.ts';
export { calibrate, type Calibration } from './inspect/calibration.ts';
export { splitForCalibration } from './inspect/calibration-split.ts';
export { localLevels, regionLevel } from './inspect/pixel-level.ts';
export { colorize, overlay, heatColour, type HeatScale, type OverlayOptions } from './inspect/heatmap.ts';
export { findRegions, type Box, type DefectRegion, type MapPlacement } from './inspect/regions.ts';
export { trainInspector } from './train/entry.ts';
export type { CheckpointStore, PreviewOptions, TrainingPreview, TrainingTileOptions, TrainOptions, TrainProgress, TrainResult } from './train/train.ts';
export type { FeatureCacheOptions, SpillStore } from './train/feature-cache.ts';
export { planReport, type PlanReport, type PlanReportOptions } from './train/plan-report.ts';

// Images and encoders
export { sizeInWords, toSize, type Size } from './data/preprocess.ts';
export { checkRasterImage, rasterFromFloats, type ImageSource, type ImageView, type RasterImage } from './data/image.ts';
export { loadEncoderWeights, type EncoderArchitecture, type EncoderWeights, type LoadEncoderOptions } from './weights/encoder.ts';
export { encoderCatalog, findEncoder, type EncoderEntry } from './weights/catalog.ts';
export type { Precision } from './model/parameters.ts';
export { detectorConfig, type DecoderKind, type DetectorConfig, type DetectorOptions, type Method } from './model/config.ts';

// The engine itself, for graphs and kernels of one's own
export * as ops from './ops/index.ts';
export { definePointwise, type PointwiseDefinition } from './ops/pointwise.ts';
export { apply, constant, input, parameter, scope, Tensor, type DataType, type Shape, type TensorData, type TensorSpec } from './graph/tensor.ts';
export type { Binding, Dispatch, Epilogue, GradientContext, KernelContext, Operation } from './graph/operation.ts';
export { differentiate } from './graph/autograd.ts';
export { interpret } from './graph/interpreter.ts';
export { checkAgainstReference } from './graph/check-lazily.ts';
export type { CheckOptions, NodeCheck } from './graph/check.ts';
export { compile, type CompileOptions, type Plan } from './graph/plan.ts';
export { Executable } from './graph/executor.ts';
export type { DispatchTiming } from './graph/profile.ts';
export { GpuContext } from './gpu/context.ts';
export { DeviceMemory, type DeviceTensor } from './gpu/memory.ts';
export { defaultTarget, type Target } from './gpu/target.ts';
export { constants, f32, kernel, u32, wgsl, type KernelSource, type WgslText } from './gpu/wgsl.ts';
