import { describe, expect, it } from 'vitest';
import { Evaluator } from '../../src/evaluate/evaluate.ts';
import { outcomeRates, type CategoryResult, type Mistake, type Outcome } from '../../src/node/evaluation.ts';
import { histogramOf, renderEvaluation } from '../../src/node/evaluation-report.ts';
import { resultRows, resultsCsv, thresholdTable } from '../../src/node/evaluation-table.ts';
import { summaryOf } from '../../src/node/commands/evaluate.ts';

const picture = { width: 4, height: 4, channels: 3 as const, data: new Uint8Array(48).fill(90) };

/** Scores of good and bad images, with maps of two pixels each; `bad` undefined: a category without defects. */
function result(category: string, good: readonly number[], bad: readonly number[] = [], threshold = 0.5): CategoryResult {
  const evaluator = new Evaluator();
  const outcomes = [...good.map((score) => [score, 0] as const), ...bad.map((score) => [score, 1] as const)].map(([score, label], i): Outcome => {
    evaluator.add({ score, label, map: Float32Array.of(0.1, score), width: 2, height: 1, ...(label === 1 && { mask: Uint8Array.of(0, 1) }) });
    return { file: `${category}/${i}.png`, score, label, defect: label === 1 ? 'dent' : 'good', ...(Number.isFinite(threshold) && { flagged: score > threshold }) };
  });
  const mistakes = outcomes.filter(({ flagged, label }) => flagged !== undefined && flagged !== (label === 1)).map((outcome): Mistake => ({
    ...outcome, category, threshold, margin: Math.abs(outcome.score / threshold - 1), source: picture, overlay: picture,
  }));
  return {
    category, evaluation: evaluator.result(), curves: evaluator.curves(), threshold, thresholdRule: 'a rule', ...outcomeRates(outcomes), outcomes, mistakes, skipped: [],
    imagesPerSecond: 12.5, seconds: { inspecting: 1, metrics: 0.1 },
  };
}

const render = (results: readonly CategoryResult[]) => renderEvaluation({ title: 'Parts & <more>', results, summary: summaryOf(results), details: [['Model', 'm.safetensors']] });
/** Without Chart.js's own text. */
const ownText = (html: string) => html.replace(/<script>[^]*?<\/script>/, '');

describe('the report', () => {
  const results = [result('screw <1>', [0.1, 0.7, 0.2], [0.9, 0.4]), result('nut', [0.1, 0.2], [0.9, 0.8])];

  it('shows every category, the rates and the mistakes, the worst first', async () => {
    const html = await render(results);
    for (const text of ['screw &lt;1&gt;', 'Parts &amp; &lt;more&gt;', '20.0 %', '25.0 %', '2 of 9 verdicts are wrong', '>missed<', '>false alarm<', 'a rule']) expect(html).toContain(text);
    expect(html).not.toContain('screw <1>');
    expect(html.indexOf('>false alarm<')).toBeLessThan(html.indexOf('>missed<'));
    const data = JSON.parse(/<script id="data" type="application\/json">(.*)<\/script>/.exec(html)![1]!) as { categories: { name: string; curves: Record<string, { points: { x: number; y: number }[] }> }[]; histograms: unknown[] };
    expect(data.categories.map(({ name }) => name)).toEqual(['screw <1>', 'nut']);
    expect(data.categories[1]!.curves['image-roc']!.points[0]).toEqual({ x: 0, y: 0 });
    expect(data.categories[1]!.curves['image-roc']!.points.at(-1)).toEqual({ x: 1, y: 1 });
    expect(data.histograms).toHaveLength(2);
  });

  it('stands alone', async () => {
    const html = await render(results);
    expect(html).not.toMatch(/<link|@import/);
    for (const [, source] of ownText(html).matchAll(/src="([^"]*)"/g)) expect(source).toMatch(/^data:image\/jpeg;base64,/);
    // The library, the data, the page's own.
    expect(html.match(/<\/script>/g)).toHaveLength(3);
    expect(html).toContain('prefers-color-scheme: dark');
  });

  it('survives a category without defects, and one without mistakes', async () => {
    const html = ownText(await render([result('only good', [0.1, 0.2])]));
    expect(html).toContain('None: every verdict is right.');
    expect(html).toContain('<td>–</td>');
    expect(html.replace(/<script[^]*<\/script>/g, '')).not.toMatch(/NaN|undefined|Infinity/);
  });

  it('has no rates and no mistakes where there is no threshold', async () => {
    const unjudged = result('zero-shot', [0.1, 0.7], [0.9], NaN);
    expect(unjudged).toMatchObject({ falsePositiveRate: null, missRate: null, perFolder: [{ flagged: null }, { flagged: null }] });
    const html = ownText(await render([unjudged]));
    expect(html).toContain('There is no threshold');
    expect(html.replace(/<script[^]*<\/script>/g, '')).not.toMatch(/NaN|undefined|Infinity/);
    expect(thresholdTable([unjudged])).toMatch(/zero-shot +- +- +- +3/);
    expect(resultsCsv([unjudged])).toMatch(/,,,,12\.5\r\n$/);
  });

  it('has histograms that count every image', () => {
    const { good, defective, threshold, low, high } = histogramOf(results[0]!);
    expect([good.reduce((a, b) => a + b), defective.reduce((a, b) => a + b)]).toEqual([3, 2]);
    expect([low, high]).toEqual([0.1, 0.9]);
    expect(threshold! / good.length).toBeCloseTo(0.5, 12);
    expect(histogramOf({ outcomes: results[0]!.outcomes, threshold: NaN })).toMatchObject({ low: 0.1, high: 0.9, threshold: null });
    expect(histogramOf({ outcomes: [], threshold: 0.5 }).good.reduce((a, b) => a + b)).toBe(0);
  });
});

describe('tables', () => {
  const results = [result('a, "b"', [0.1, 0.7], [0.9]), result('only good', [0.1])];

  it('end with the mean of what is defined', () => {
    const rows = resultRows(results);
    expect(rows.map(([name]) => name)).toEqual(['a, "b"', 'only good', 'mean']);
    expect(rows[2]![1]).toEqual({ ...rows[0]![1], auproExact: undefined, images: undefined, defectiveImages: undefined, pixelImages: undefined, imagesWithoutMask: undefined });
    expect(resultRows(results.slice(0, 1))).toHaveLength(1);
    expect(thresholdTable(results)).toMatch(/only good +0\.5000 +0\.0 % +- +1 +12\.5/);
  });

  it('as CSV quote what needs it, and leave out what is undefined', () => {
    const [header, first, second, mean, end] = resultsCsv(results).split('\r\n');
    expect(header).toMatch(/^category,images,defective_images,pixel_images,I-AUROC,.*,AUPRO,AUPRO_exact,threshold,false_positive_rate,miss_rate,images_per_second$/);
    expect(first).toMatch(/^"a, ""b""",3,1,3,1,1,.*,0\.5,0\.5,0,12\.5$/);
    expect(second).toMatch(/^only good,1,0,1,,,,,,,,,0\.5,0,,12\.5$/);
    expect(mean).toMatch(/^mean,4,1,4,1,1,/);
    expect(end).toBe('');
  });

  it('sum up: means of metrics, rates over all images', () => {
    expect(summaryOf(results)).toMatchObject({ imageAuroc: 1, images: 4, defectiveImages: 1, falsePositiveRate: 1 / 3, missRate: 0, imagesPerSecond: 2 });
  });
});
