/** An evaluation as text: the table that people read, and the CSV that spreadsheets do. */
import { METRIC_NAMES, averageMetrics, type EvaluationMetrics } from '../evaluate/evaluate.ts';
import { table } from './commands/context.ts';
import type { CategoryResult, KindOutcome } from './evaluation.ts';

const number = (value: number | null | undefined): string => value?.toFixed(3) ?? '-';

/** One row per category, the seven metrics as columns. */
export function metricsTable(rows: readonly (readonly [string, EvaluationMetrics])[], title = ''): string {
  return table(
    [title, ...METRIC_NAMES.map(([, name]) => name)],
    rows.map(([name, evaluation]) => [name, ...METRIC_NAMES.map(([key]) => number(evaluation[key]))]),
    METRIC_NAMES.map((_, i) => i + 1),
  );
}

/** The categories' rows and, of several, their mean. */
export function resultRows(results: readonly CategoryResult[]): (readonly [string, EvaluationMetrics])[] {
  const rows = results.map(({ category, evaluation }) => [category, evaluation] as const);
  return results.length > 1 ? [...rows, ['mean', averageMetrics(results.map(({ evaluation }) => evaluation))]] : rows;
}

/** How the stored threshold does, a category a row. */
export function thresholdTable(results: readonly CategoryResult[]): string {
  const percent = (share: number | null) => (share === null ? '-' : `${(100 * share).toFixed(1)} %`);
  return table(
    ['', 'threshold', 'false alarms', 'misses', 'images', 'images/s'],
    results.map(({ category, threshold, falsePositiveRate, missRate, outcomes, imagesPerSecond }) => [category, Number.isFinite(threshold) ? threshold.toPrecision(4) : '-', percent(falsePositiveRate), percent(missRate), String(outcomes.length), imagesPerSecond.toPrecision(3)]),
    [1, 2, 3, 4, 5],
  );
}

/** What is told of each kind of defect: how well images, and pixels, are told from good ones. */
export const KIND_METRICS = METRIC_NAMES.filter(([key]) => ['imageAuroc', 'pixelAuroc', 'pixelAp', 'aupro'].includes(key));

/** Which kinds of defect are found: flagged images, and each kind's metrics against the good images. */
export function kindsTable(kinds: readonly KindOutcome[]): string {
  return table(
    ['kind', 'images', 'flagged', ...KIND_METRICS.map(([, name]) => name)],
    kinds.map(({ defect, images, flagged, metrics }) => [defect, String(images), String(flagged ?? '-'), ...KIND_METRICS.map(([key]) => (metrics ? number(metrics[key]) : ''))]),
    [1, 2, ...KIND_METRICS.map((_, i) => i + 3)],
  );
}

/** One line a category, then their mean where there are several; undefined numbers are empty. RFC 4180. */
export function resultsCsv(results: readonly CategoryResult[]): string {
  const header = ['category', 'images', 'defective_images', 'pixel_images', ...METRIC_NAMES.map(([, name]) => name), 'AUPRO_exact', 'threshold', 'false_positive_rate', 'miss_rate', 'images_per_second'];
  const text = (value: string | number | null): string => {
    const plain = value === null ? '' : String(value);
    return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const rows = results.map(({ category, evaluation, threshold, falsePositiveRate, missRate, imagesPerSecond }) => [
    category, evaluation.images, evaluation.defectiveImages, evaluation.pixelImages, ...METRIC_NAMES.map(([key]) => evaluation[key]), evaluation.auproExact, Number.isFinite(threshold) ? threshold : null, falsePositiveRate, missRate, imagesPerSecond,
  ]);
  if (results.length > 1) {
    const sum = (of: (result: CategoryResult) => number): number => results.reduce((total, result) => total + of(result), 0);
    const mean = averageMetrics(results.map(({ evaluation }) => evaluation));
    rows.push(['mean', sum((r) => r.evaluation.images), sum((r) => r.evaluation.defectiveImages), sum((r) => r.evaluation.pixelImages), ...METRIC_NAMES.map(([key]) => mean[key]), null, null, null, null, null]);
  }
  return `${[header, ...rows].map((row) => row.map(text).join(',')).join('\r\n')}\r\n`;
}
