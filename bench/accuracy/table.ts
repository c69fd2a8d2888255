/** The results as Markdown, and what they say about the papers' claims. */
import { averageMetrics, METRIC_NAMES, type EvaluationMetrics } from '../../src/evaluate/evaluate.ts';
import type { Setting } from './settings.ts';

export interface Cell extends EvaluationMetrics {
  readonly setting: string;
  readonly title: string;
  readonly category: string;
  /** What evaluated it. */
  readonly adapter: string;
  readonly images: number;
  /** P-AP of each kind of defect against the good images. */
  readonly kinds: Readonly<Record<string, number | null>>;
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
  const sections = categories.filter((name) => cells.some((cell) => cell.category === name)).map((name) => {
    const own = cells.filter((cell) => cell.category === name);
    return `### ${name}\n\n${header}\n${rows((id) => own.filter((cell) => cell.setting === id))}${kindsTable(own, settings, number)}`;
  });
  const means = rows((id) => {
    const own = cells.filter((cell) => cell.setting === id);
    return own.length === categories.length ? own : [];
  });
  const whole = categories.length > 1 && means !== '' ? [`### Mean over ${categories.length} categories\n\n${header}\n${means}`] : [];
  return `${Object.entries(conditions).filter(([, value]) => value !== undefined).map(([name, value]) => `${name} ${String(value)}`).join(', ')}\n\n${[...sections, ...whole].join('\n\n')}\n`;
}

/** P-AP by kind of defect, where there are several: over all pixels the largest kind rules. */
function kindsTable(cells: readonly Cell[], settings: readonly Pick<Setting, 'id' | 'title'>[], number: (value: number | null) => string): string {
  const kinds = [...new Set(cells.flatMap((cell) => Object.keys(cell.kinds)))];
  if (kinds.length < 2) return '';
  const rows = settings.flatMap(({ id, title }) => {
    const cell = cells.find(({ setting }) => setting === id);
    return cell ? [`| ${title} | ${kinds.map((kind) => number(cell.kinds[kind] ?? null)).join(' | ')} | ${number(meanOfKinds(cell))} |`] : [];
  });
  return `\n\nP-AP of each kind of defect against the good images:\n\n| setting | ${kinds.join(' | ')} | mean |\n|---|${'---|'.repeat(kinds.length + 1)}\n${rows.join('\n')}`;
}

function meanOfKinds({ kinds }: Cell): number | null {
  const values = Object.values(kinds).filter((value) => value !== null);
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** What must hold by the papers, category by category: each line says what was found, and whether it goes the other way. */
export function findings({ categories, cells }: Table): string[] {
  const value = (setting: string, category: string, key: keyof EvaluationMetrics | 'kinds'): number | null => {
    const cell = cells.find((other) => other.setting === setting && other.category === category);
    return !cell ? null : key === 'kinds' ? meanOfKinds(cell) : cell[key];
  };
  const claim = (name: string, better: string, worse: string, key: keyof EvaluationMetrics | 'kinds', slack = 0): string[] => categories.flatMap((category) => {
    const [high, low] = [value(better, category, key), value(worse, category, key)];
    if (high === null || low === null) return [];
    return [`${high >= low - slack ? 'holds        ' : 'THE OTHER WAY'}  ${category}: ${name} (${high.toFixed(3)} and ${low.toFixed(3)})`];
  });
  return [
    ...claim('the head raises P-AP of the single-class model', 'head', 'base', 'pixelAp'),
    ...claim('the head raises the mean P-AP of the kinds of defect', 'head', 'base', 'kinds'),
    ...claim('INP-Former++ has a higher P-AP than INP-Former', 'plus', 'base', 'pixelAp'),
    ...claim('INP-Former++ has a higher mean P-AP of the kinds of defect', 'plus', 'base', 'kinds'),
    ...claim('real defects raise P-AP further', 'plus-defects', 'plus', 'pixelAp'),
    ...claim('prototypes beat the self-attention decoder in I-AUROC', 'base', 'no-prototypes', 'imageAuroc'),
    ...claim('multi-class loses at most 2 points of I-AUROC', 'multi', 'base', 'imageAuroc', 0.02),
    ...claim('four shots are no worse than one in I-AUROC', 'shots-4', 'shots-1', 'imageAuroc'),
  ];
}
