/**
 * What each part of the detector is worth on somebody's own data: variants with one part changed or left out are trained on the
 * same images with the same steps and seed, and measured on the same tests.
 */
import type { ImageSource } from '../data/image.ts';
import type { Engine } from '../engine.ts';
import { UsageError } from '../errors.ts';
import { evaluate, type Evaluation, type EvaluationSample } from '../evaluate/evaluate.ts';
import { sizeOf } from '../graph/tensor.ts';
import { groundTruth } from '../inspect/ground-truth.ts';
import { detectorConfig } from '../model/config.ts';
import { readSafetensors } from '../weights/safetensors.ts';
import { trainInspector, type TrainOptions } from './train.ts';

/** The settings that variants differ in. */
export type VariantOptions = Pick<TrainOptions, 'numPrototypes' | 'coherence' | 'mining' | 'residual' | 'decoder' | 'neighbourhood'>;

export interface AblationVariant {
  readonly name: string;
  /** What is different, in words. */
  readonly what: string;
  readonly options: VariantOptions;
}

/** The first is INP-Former itself, with which the others are compared. */
export const ablationVariants: readonly AblationVariant[] = [
  { name: 'base', what: 'INP-Former: 6 prototypes, nearest-prototype coherence, soft mining', options: {} },
  { name: 'prototypes-1', what: '1 prototype', options: { numPrototypes: 1 } },
  { name: 'prototypes-3', what: '3 prototypes', options: { numPrototypes: 3 } },
  { name: 'prototypes-12', what: '12 prototypes', options: { numPrototypes: 12 } },
  { name: 'no-coherence', what: 'no coherence loss', options: { coherence: 'none' } },
  { name: 'soft-coherence', what: 'soft coherence loss of INP-Former++', options: { coherence: 'soft' } },
  { name: 'no-mining', what: 'no soft mining', options: { mining: false } },
  { name: 'residual', what: 'residual around the decoder\'s attention kept', options: { residual: true } },
  { name: 'self-attention', what: 'no prototypes: the decoder attends to the image\'s own tokens', options: { decoder: 'self-attention' } },
  { name: 'self-attention-residual', what: 'no prototypes, and the residual kept: a plain transformer decoder', options: { decoder: 'self-attention', residual: true } },
  { name: 'neighbour-masked', what: 'no prototypes: self-attention without each token\'s neighbours, as in UniAD', options: { decoder: 'neighbour-masked' } },
];

export interface AblationTest {
  readonly source: ImageSource;
  /** 0 normal, 1 defective. */
  readonly label: 0 | 1;
  /** Ground truth of a defective image. */
  readonly mask?: ImageSource;
}

export interface AblationOptions extends Omit<TrainOptions, keyof VariantOptions | 'method' | 'memoryRows' | 'shots' | 'checkpoint' | 'resume' | 'checkpointEverySteps'> {
  readonly tests: readonly AblationTest[];
  /** Names of {@link ablationVariants}; default all. */
  readonly variants?: readonly string[];
  readonly onTest?: (done: number, total: number) => void;
}

export interface AblationResult extends AblationVariant {
  readonly evaluation: Evaluation;
  /** At the threshold that the training calibrated: share of normal images flagged, and of defective ones missed; null without any. */
  readonly falsePositiveRate: number | null;
  readonly missRate: number | null;
  readonly finalLoss: number;
  /** Of the optimiser steps. */
  readonly seconds: number;
  readonly trainedValues: number;
  /** The model file's bytes. */
  readonly model: Uint8Array;
}

/** The variants of these names. @throws UsageError for an unknown name */
export function findVariants(names?: readonly string[]): readonly AblationVariant[] {
  if (!names) return ablationVariants;
  return names.map((name) => {
    const found = ablationVariants.find((variant) => variant.name === name);
    if (!found) throw new UsageError(`There is no variant ${name}: there are ${ablationVariants.map((variant) => variant.name).join(', ')}.`);
    return found;
  });
}

/**
 * Trains and measures one variant after another; results come as they are ready.
 * @throws UsageError before the first training, where a variant does not fit the crop; what `trainInspector` throws
 */
export async function* ablate(engine: Engine, { tests, variants, onTest, ...options }: AblationOptions): AsyncGenerator<AblationResult> {
  const wanted = findVariants(variants);
  for (const variant of wanted) detectorConfig({ ...options, ...variant.options, architecture: options.encoder.architecture, crop: options.crop ?? 392 });
  for (const variant of wanted) {
    const { inspector, model, record } = await trainInspector(engine, { ...options, ...variant.options });
    try {
      const samples: EvaluationSample[] = [];
      const flagged = [0, 0];
      for (const { source, label, mask } of tests) {
        options.signal?.throwIfAborted();
        const inspection = await inspector.inspect(await source.load());
        const { score, map, mapWidth: width, mapHeight: height, verdict } = inspection;
        samples.push({ name: source.name, score, label, map, width, height, ...(mask && { mask: groundTruth(await mask.load(), inspection, inspector.metadata) }) });
        if (verdict === 'defective') flagged[label]!++;
        onTest?.(samples.length, tests.length);
      }
      const evaluation = evaluate(samples);
      const [good, bad] = [evaluation.images - evaluation.defectiveImages, evaluation.defectiveImages];
      yield {
        ...variant, evaluation, model, finalLoss: record.finalLoss, seconds: record.seconds, trainedValues: countValues(model),
        falsePositiveRate: good > 0 ? flagged[0]! / good : null, missRate: bad > 0 ? 1 - flagged[1]! / bad : null,
      };
    } finally {
      inspector.dispose();
    }
  }
}

/** Numbers in a model file: trained, or stored in a memory. */
function countValues(model: Uint8Array): number {
  return [...readSafetensors(model).tensors.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
}
