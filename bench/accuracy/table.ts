/** The results as Markdown, and what they say about the papers' claims. */
import { averageMetrics, METRIC_NAMES, type EvaluationMetrics } from '../../src/evaluate/evaluate.ts';
import type { Setting } from './settings.ts';

export interface Cell extends EvaluationMetrics {
  readonly setting: string;
  readonly title: string;
  readonly category: string;
  readonly images: number;
  /** Of this cell alone: a model that another cell trained counts there. */
  readonly seconds: { readonly training: number; readonly evaluating: number };
}

export interface Table {
  readonly conditions: object;
  readonly categories: readonly string[];
  readonly cells: Cell[];
}

/** A table a category, and one of the means over the categories that a setting has. */
export function markdown({ conditions, categories, cells }: Table, settings: readonly Pick<Setting, 'id' | 'title'>[]): string {
  const number = (value: number | null): string => (value === null ? '–' : value.toFixed(3));
  const header = `| setting | ${METRIC_NAMES.map(([, name]) => name).join(' | ')} |\n|---|${METRIC_NAMES.map(() => '---').join('|')}|`;
  const row = (title: string, metrics: EvaluationMetrics): string => `| ${title} | ${METRIC_NAMES.map(([key]) => number(metrics[key])).join(' | ')} |`;
  const rows = (of: (id: string) => readonly Cell[]): string => settings.flatMap(({ id, title }) => {
    const found = of(id);
    return found.length === 0 ? [] : [row(title, averageMetrics(found))];
  }).join('\n');
  const sections = categories.filter((name) => cells.some((cell) => cell.category === name)).map((name) => `### ${name}\n\n${header}\n${rows((id) => cells.filter((cell) => cell.setting === id && cell.category === name))}`);
  const means = rows((id) => {
    const own = cells.filter((cell) => cell.setting === id);
    return own.length === categories.length ? own : [];
  });
  const whole = categories.length > 1 && means !== '' ? [`### Mean over ${categories.length} categories\n\n${header}\n${means}`] : [];
  return `${Object.entries(conditions).filter(([, value]) => value !== undefined).map(([name, value]) => `${name} ${String(value)}`).join(', ')}\n\n${[...sections, ...whole].join('\n\n')}\n`;
}

/** What must hold by the papers, category by category: each line says what was found, and whether it goes the other way. */
export function findings({ categories, cells }: Table): string[] {
  const value = (setting: string, category: string, key: keyof EvaluationMetrics): number | null => cells.find((cell) => cell.setting === setting && cell.category === category)?.[key] ?? null;
  const claim = (name: string, better: string, worse: string, key: keyof EvaluationMetrics, slack = 0): string[] => categories.flatMap((category) => {
    const [high, low] = [value(better, category, key), value(worse, category, key)];
    if (high === null || low === null) return [];
    return [`${high >= low - slack ? 'holds        ' : 'THE OTHER WAY'}  ${category}: ${name} (${high.toFixed(3)} and ${low.toFixed(3)})`];
  });
  return [
    ...claim('the head raises P-AP of the single-class model', 'head', 'base', 'pixelAp'),
    ...claim('INP-Former++ has a higher P-AP than INP-Former', 'plus', 'base', 'pixelAp'),
    ...claim('real defects raise P-AP further', 'plus-defects', 'plus', 'pixelAp'),
    ...claim('prototypes beat the self-attention decoder in I-AUROC', 'base', 'no-prototypes', 'imageAuroc'),
    ...claim('multi-class loses at most 2 points of I-AUROC', 'multi', 'base', 'imageAuroc', 0.02),
    ...claim('four shots are no worse than one in I-AUROC', 'shots-4', 'shots-1', 'imageAuroc'),
  ];
}
