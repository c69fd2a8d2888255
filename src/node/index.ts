/** What Node adds to the core: Dawn, image files, folders, encoders from disk or download, atomic files. */
export * from '../index.ts';
export { averageMetrics, evaluate, Evaluator, type Evaluation, type EvaluationMetrics, type EvaluationSample } from '../evaluate/evaluate.ts';
export { publishedFor, publishedResults, type ProtocolSetting, type PublishedResult } from '../evaluate/published.ts';
export { openDataset, openDatasets, readMask, splitCategories, type OpenCategory, type OpenDatasets, type OpenDatasetsOptions } from './dataset.ts';
export { evaluateCategory, type CategoryResult, type EvaluateCategoryOptions } from './evaluation.ts';
export { renderEvaluation, type EvaluationReport } from './evaluation-report.ts';
export { resultsCsv } from './evaluation-table.ts';
export { exportOnnx, type ExportOnnxOptions } from '../export/onnx.ts';
export * from '../inspect/prototypes.ts';
export { createNodeEngine } from './engine.ts';
export { createGpu, noAdapterAdvice, type AdapterChoice } from './adapter.ts';
export { decodeImageFile, encodePng, imageFileSource } from './images.ts';
export { listFolder } from './folders.ts';
export { readFileChecked, writeFileAtomic } from './files.ts';
export { openInspector, resolveEncoderOf } from './encoder-of-model.ts';
export { resolveEncoder, type ResolveEncoderOptions } from './encoder-store.ts';
export { openSpillFile } from './spill.ts';
