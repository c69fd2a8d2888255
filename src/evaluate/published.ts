/**
 * What the papers report for INP-Former, to be printed beside one's own: means over the categories of a data set, with the
 * encoder DINOv2 ViT-B/14 with registers at 448, cropped to 392, 200 epochs.
 *
 * Source: INP-Former, CVPR 2025 (arXiv 2503.02424); INP-Former++, arXiv 2506.03660.
 */
import type { EvaluationMetrics } from './evaluate.ts';

export type ProtocolSetting = 'single' | 'multi' | 'super-multi' | `few-${number}` | 'zero';

export interface PublishedResult extends EvaluationMetrics {
  readonly dataset: string;
  readonly setting: ProtocolSetting;
  /** INP-Former++ instead of INP-Former. */
  readonly plus?: boolean;
}

/** Percent, as printed; undefined where the paper has no figure. */
type Percentages = readonly [iAuroc: number, iAp: number | undefined, iF1: number | undefined, pAuroc: number, pAp: number | undefined, pF1: number | undefined, aupro: number];

function row(dataset: string, setting: ProtocolSetting, values: Percentages, plus = false): PublishedResult {
  const [imageAuroc, imageAp, imageF1Max, pixelAuroc, pixelAp, pixelF1Max, aupro] = values.map((value) => (value === undefined ? null : Math.round(value * 10) / 1000)) as [number, number, number, number, number, number, number];
  return { dataset, setting, imageAuroc, imageAp, imageF1Max, pixelAuroc, pixelAp, pixelF1Max, aupro, ...(plus && { plus }) };
}

export const publishedResults: readonly PublishedResult[] = [
  row('MVTec AD', 'multi', [99.7, 99.9, 99.2, 98.5, 71.0, 69.7, 94.9]),
  row('VisA', 'multi', [98.9, 99.0, 96.6, 98.9, 51.2, 54.7, 94.4]),
  row('Real-IAD', 'multi', [90.5, 88.1, 81.5, 99.0, 47.5, 50.3, 95.0]),
  row('MVTec AD', 'super-multi', [99.5, 99.8, 98.9, 98.1, 69.2, 68.1, 94.2]),
  row('MVTec AD', 'few-4', [97.6, 98.6, 97.0, 97.0, 65.9, 65.6, 92.9]),
  row('MVTec AD', 'few-1', [96.6, 98.2, 96.4, 97.0, 64.2, 64.0, 92.6]),
  row('MVTec AD', 'zero', [80.8, 90.7, 89.1, 88.0, 36.1, 39.5, 76.9]),
  row('MVTec AD', 'multi', [99.8, undefined, undefined, 98.7, undefined, undefined, 96.0], true),
];

/** The paper's row, where it has one. */
export function publishedFor(dataset: string | undefined, setting: ProtocolSetting, plus = false): PublishedResult | undefined {
  return publishedResults.find((result) => result.dataset === dataset && result.setting === setting && (result.plus ?? false) === plus);
}
