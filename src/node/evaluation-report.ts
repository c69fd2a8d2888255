/**
 * An evaluation as one HTML file that works offline: metrics by category, how the stored threshold does, score histograms,
 * ROC and precision-recall curves, and the worst mistakes with their heat maps. Charts are drawn by Chart.js, whose text is
 * put into the page; pictures are data URIs; all other text is escaped.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { InputError } from '../errors.ts';
import { METRIC_NAMES, type EvaluationMetrics } from '../evaluate/evaluate.ts';
import type { CategoryResult, Mistake } from './evaluation.ts';
import { KIND_METRICS, resultRows } from './evaluation-table.ts';
import { escapeHtml, imageUri, STYLE } from './report.ts';

export interface EvaluationReport {
  /** What was evaluated, e.g. `MVTec AD, 15 categories`. */
  readonly title: string;
  readonly results: readonly CategoryResult[];
  readonly summary: EvaluationMetrics & { readonly images: number; readonly defectiveImages: number; readonly falsePositiveRate: number | null; readonly missRate: number | null; readonly imagesPerSecond: number };
  /** Names and values at the end: model, data, encoder, adapter. */
  readonly details: readonly (readonly [string, string])[];
}

/** Mistakes that are shown, of all categories. */
const MISTAKES = 12;
/** Bins of a score histogram. */
const BINS = 40;

/** @throws InputError where Chart.js is not installed */
export async function renderEvaluation({ title, results, summary, details }: EvaluationReport): Promise<string> {
  const library = await chartLibrary();
  const mistakes = results.flatMap((result) => result.mistakes).sort((a, b) => b.margin - a.margin).slice(0, MISTAKES);
  const wrong = results.flatMap(({ outcomes }) => outcomes).filter(({ flagged, label }) => flagged !== undefined && flagged !== (label === 1)).length;
  const figures: [label: string, value: string, note: string][] = [
    ['Image AUROC', decimals(summary.imageAuroc), 'good and defective told apart'],
    ['Pixel AUROC', decimals(summary.pixelAuroc), 'defects found where they are'],
    ['AUPRO', decimals(summary.aupro), 'small defects count as much as large'],
    ['False alarms', percent(summary.falsePositiveRate), 'of the good images, at the stored threshold'],
    ['Misses', percent(summary.missRate), 'of the defective images'],
    ['Speed', `${summary.imagesPerSecond.toPrecision(3)}/s`, 'images inspected, decoding included'],
  ];
  const pictures = await Promise.all(mistakes.map(mistakeItem));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation: ${escapeHtml(title)}</title>
<style>${STYLE}${MORE_STYLE}</style>
</head>
<body>
<header>
<h1>${escapeHtml(title)}</h1>
<p>${summary.images} images inspected, ${summary.defectiveImages} of them defective${results.length > 1 ? `, in ${results.length} categories; figures are their means, rates are over all images` : ''}.</p>
</header>
<main>
<section class="figures six" aria-label="Headline figures">
${figures.map(([label, value, note]) => `<div class="figure"><span class="label">${label}</span><strong>${value}</strong><span class="note">${note}</span></div>`).join('\n')}
</section>
<section class="card"><h2>Metrics</h2>
<div class="scroll"><table class="metrics">
<thead><tr><th scope="col"></th>${METRIC_NAMES.map(([, name]) => `<th scope="col">${name}</th>`).join('')}</tr></thead>
<tbody>${resultRows(results).map(([name, metrics], i) => `<tr${i === results.length ? ' class="total"' : ''}><th scope="row">${escapeHtml(name)}</th>${METRIC_NAMES.map(([key]) => metricCell(metrics[key])).join('')}</tr>`).join('\n')}</tbody>
</table></div>
<p class="note">I: image, P: pixel. A dash: no such number, because one of the two kinds of images or pixels is missing; means leave it out.</p>
</section>
<section class="card"><h2>The stored threshold</h2>
<p>Each image is called defective if its score is above the threshold, which comes from normal images alone. Bars: how many images have which score.</p>
<div class="histograms">${results.map(thresholdPanel).join('\n')}</div>
</section>
<section class="card"><h2>Curves</h2>
<p>Every threshold at once: what share of the good is flagged for what share of the defective (ROC), and how many of the flagged are defective (precision and recall).${results.length > 1 ? ' A click on a category hides or shows it.' : ''}</p>
<div class="curves">${CURVES.map(([id, name]) => `<figure><h3>${name}</h3><div class="plot"><canvas id="${id}" role="img" aria-label="${name}"></canvas></div></figure>`).join('\n')}</div>
</section>
<section class="card"><h2>Worst mistakes</h2>
${mistakes.length === 0 ? `<p>${summary.falsePositiveRate === null && summary.missRate === null ? 'There is no threshold, hence no verdict.' : 'None: every verdict is right.'}</p>` : `<p>${wrong} of ${summary.images} verdicts are wrong; ${mistakes.length < wrong ? `the ${mistakes.length} farthest` : 'here they are, those farthest'} on the wrong side of the threshold first. Left the image; right its heat map, with the true defect outlined in green and found regions in cyan.</p>
<ul class="gallery">
${pictures.join('\n')}
</ul>`}
</section>
<section class="card"><h2>Details</h2>
<dl>${details.map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`).join('\n')}</dl>
</section>
</main>
<script>${library.replace(/<\/script/gi, '<\\/script')}</script>
<script id="data" type="application/json">${JSON.stringify(chartData(results)).replace(/</g, '\\u003c')}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

const CURVES = [
  ['image-roc', 'Images: ROC'], ['image-pr', 'Images: precision and recall'],
  ['pixel-roc', 'Pixels: ROC'], ['pixel-pr', 'Pixels: precision and recall'],
] as const;

/** Chart.js as a script that defines `Chart`. */
async function chartLibrary(): Promise<string> {
  try {
    const entry = createRequire(import.meta.url).resolve('chart.js');
    return await readFile(join(dirname(entry), 'chart.umd.min.js'), 'utf8');
  } catch (cause) {
    throw new InputError('The report needs the package chart.js, which can\'t be loaded. Install it: npm install chart.js', { code: 'missing-package', cause });
  }
}

function chartData(results: readonly CategoryResult[]) {
  const rounded = (points: readonly (readonly [number, number])[] | undefined) => (points ?? []).map(([x, y]) => ({ x: round(x), y: round(y) }));
  return {
    categories: results.map(({ category, evaluation, curves }) => ({
      name: category,
      curves: {
        'image-roc': { points: rounded(curves.image?.roc), value: `AUROC ${decimals(evaluation.imageAuroc)}` },
        'image-pr': { points: rounded(curves.image?.precisionRecall), value: `AP ${decimals(evaluation.imageAp)}` },
        'pixel-roc': { points: rounded(curves.pixel?.roc), value: `AUROC ${decimals(evaluation.pixelAuroc)}` },
        'pixel-pr': { points: rounded(curves.pixel?.precisionRecall), value: `AP ${decimals(evaluation.pixelAp)}` },
      },
    })),
    histograms: results.map(histogramOf),
  };
}

/** Counts of good and defective scores in equal bins, and where the threshold lies, in bins. */
export function histogramOf({ outcomes, threshold }: Pick<CategoryResult, 'outcomes' | 'threshold'>): { low: number; high: number; good: number[]; defective: number[]; threshold: number | null } {
  const scores = outcomes.map(({ score }) => score);
  const shown = Number.isFinite(threshold) ? [...scores, threshold] : scores;
  const low = shown.reduce((a, b) => Math.min(a, b), Infinity);
  const high = shown.reduce((a, b) => Math.max(a, b), -Infinity);
  const width = (high - low || 1) / BINS;
  const counts = (label: 0 | 1): number[] => {
    const bins = Array.from({ length: BINS }, () => 0);
    for (const outcome of outcomes) if (outcome.label === label) bins[Math.min(BINS - 1, Math.floor((outcome.score - low) / width))]!++;
    return bins;
  };
  return { low, high, good: counts(0), defective: counts(1), threshold: Number.isFinite(threshold) ? (threshold - low) / width : null };
}

function thresholdPanel({ category, threshold, thresholdRule, falsePositiveRate, missRate, perFolder, imagesPerSecond }: CategoryResult, i: number): string {
  return `<figure>
<h3>${escapeHtml(category)}</h3>
<p class="rates"><span class="good-text">${percent(falsePositiveRate)}</span> false alarms <span class="defective-text">${percent(missRate)}</span> misses <span>${imagesPerSecond.toPrecision(3)} images/s</span></p>
<div class="histogram-plot"><canvas id="histogram${i}" role="img" aria-label="Scores of ${escapeHtml(category)} with the threshold"></canvas></div>
<details><summary>${Number.isFinite(threshold) ? `Threshold ${threshold.toPrecision(4)}` : 'No threshold'}; kinds of defect</summary>
${Number.isFinite(threshold) ? `<p>${escapeHtml(thresholdRule)}.</p>` : ''}
<table><thead><tr><th scope="col">kind</th><th scope="col">flagged</th>${KIND_METRICS.map(([, name]) => `<th scope="col">${name}</th>`).join('')}</tr></thead>
<tbody>${perFolder.map(({ defect, images, flagged, metrics }) => `<tr><th scope="row">${escapeHtml(defect)}</th><td>${flagged ?? '–'} of ${images}</td>${KIND_METRICS.map(([key]) => `<td>${metrics ? metrics[key]?.toFixed(3) ?? '–' : ''}</td>`).join('')}</tr>`).join('')}</tbody></table></details>
</figure>`;
}

async function mistakeItem({ category, file, score, threshold, defect, label, source, overlay }: Mistake): Promise<string> {
  const name = file.split(/[\\/]/).slice(-2).join('/');
  const highest = Math.max(score, threshold) * 1.05;
  const share = (value: number) => `${((100 * value) / highest).toFixed(1)}%`;
  const kind = label === 1 ? 'missed' : 'false alarm';
  return `<li class="wrong">
<div class="pair"><img src="${await imageUri(source)}" alt="${escapeHtml(name)}" loading="lazy"><img src="${await imageUri(overlay)}" alt="Heat map of ${escapeHtml(name)}" loading="lazy"></div>
<div class="meter" role="img" aria-label="Score ${score.toFixed(4)}, threshold ${threshold.toFixed(4)}"><span class="${label === 1 ? 'good' : 'defective'}" style="width:${share(score)}"></span><i style="left:${share(threshold)}"></i></div>
<div class="caption"><span>${escapeHtml(category)} <em>${escapeHtml(defect)}</em></span><span class="badge wrong">${kind}</span></div>
<div class="caption"><span>score ${score.toPrecision(3)}, threshold ${threshold.toPrecision(3)}</span></div>
<div class="caption note">${escapeHtml(name)}</div>
</li>`;
}

function metricCell(value: number | null): string {
  return value === null ? '<td>–</td>' : `<td style="--share:${Math.round(Math.max(0, Math.min(1, value)) * 100)}%">${value.toFixed(3)}</td>`;
}

function decimals(value: number | null): string {
  return value === null ? '–' : value.toFixed(3);
}

function percent(share: number | null): string {
  return share === null ? '–' : `${(100 * share).toFixed(1)} %`;
}

function round(value: number): number {
  return Math.round(value * 1e4) / 1e4;
}

const MORE_STYLE = `
h3 { margin: 0 0 4px; font-size: 14px; font-weight: 600; }
figure { margin: 0; }
.pair { background: #000; } .pair img { height: 180px; object-fit: contain; }
.figures.six { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.metrics td { background: linear-gradient(to right, color-mix(in srgb, var(--accent) 15%, transparent) var(--share, 0%), transparent var(--share, 0%)); }
.metrics th:first-child { padding-right: 16px; }
.histograms, .curves { display: grid; gap: 24px; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); }
.curves { grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.plot { position: relative; height: 320px; } .histogram-plot { position: relative; height: 170px; }
.rates { font-size: 13px; color: var(--soft); margin-bottom: 6px; } .rates span { margin-left: 10px; } .rates span:first-child { margin-left: 0; }
details { font-size: 13px; margin-top: 4px; } summary { color: var(--soft); cursor: pointer; } details p { color: var(--soft); }
details table { width: auto; } details th, details td { padding: 3px 16px 3px 0; text-align: left; }
.note { font-size: 13px; }
`;

/** Runs in the page. */
const SCRIPT = `
const data = JSON.parse(document.getElementById('data').textContent);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const many = data.categories.length;
const colour = (i) => many === 1 ? style('accent') : 'hsl(' + Math.round(222 + i * 360 / many) % 360 + ' ' + (dark() ? '70% 66%' : '62% 45%') + ')';
const dark = () => matchMedia('(prefers-color-scheme: dark)').matches;
let charts = [];
Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
const thresholdLine = {
  id: 'threshold',
  afterDatasetsDraw: (chart) => {
    const { ctx, chartArea: { left, right, top, bottom }, options: { plugins: { threshold } } } = chart;
    if (!threshold || threshold.at === null) return;
    const x = left + (right - left) * threshold.at;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = threshold.colour;
    ctx.lineWidth = 2;
    ctx.setLineDash([5, 3]);
    ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, bottom); ctx.stroke();
    ctx.font = '11px ' + Chart.defaults.font.family;
    ctx.textAlign = threshold.at > 0.7 ? 'right' : 'left';
    ctx.fillText('threshold', x + (threshold.at > 0.7 ? -5 : 5), top + 9);
    ctx.restore();
  },
};
function draw() {
  for (const chart of charts) chart.destroy();
  Chart.defaults.color = style('soft');
  Chart.defaults.borderColor = style('line');
  const axis = (title, more) => ({ min: 0, max: 1, title: { display: true, text: title }, ticks: { stepSize: 0.2 }, ...more });
  const curve = (id, x, y) => {
    const lines = data.categories.map(({ name, curves }, i) => ({ label: name + ', ' + curves[id].value, data: curves[id].points, borderColor: colour(i), backgroundColor: colour(i), borderWidth: many > 12 ? 1.25 : 2, pointRadius: 0, pointHitRadius: 6, showLine: true, clip: 4 })).filter((line) => line.data.length > 0);
    const chance = id.endsWith('roc') ? [{ label: 'chance', data: [{ x: 0, y: 0 }, { x: 1, y: 1 }], borderColor: style('line'), borderWidth: 1, borderDash: [4, 4], pointRadius: 0, pointHitRadius: 0, showLine: true }] : [];
    return new Chart(id, {
      type: 'scatter',
      data: { datasets: [...lines, ...chance] },
      options: {
        interaction: { mode: 'nearest', intersect: false },
        plugins: {
          legend: { position: many > 1 && many <= 30 ? 'bottom' : 'top', labels: { filter: ({ text }) => text !== 'chance', usePointStyle: true, pointStyle: 'line', boxWidth: 22, font: { size: 11 } } },
          tooltip: { callbacks: { label: ({ dataset, raw }) => dataset.label + ': ' + x.toLowerCase() + ' ' + raw.x.toFixed(3) + ', ' + y.toLowerCase() + ' ' + raw.y.toFixed(3) } },
        },
        scales: { x: axis(x), y: axis(y) },
      },
    });
  };
  charts = [
    curve('image-roc', 'False-positive rate', 'True-positive rate'), curve('image-pr', 'Recall', 'Precision'),
    curve('pixel-roc', 'False-positive rate', 'True-positive rate'), curve('pixel-pr', 'Recall', 'Precision'),
    ...data.histograms.map(({ low, high, good, defective, threshold }, i) => {
      const from = (bin) => low + (high - low) * bin / good.length;
      const bars = (label, counts, name) => ({ label, data: counts, backgroundColor: style(name), barPercentage: 1, categoryPercentage: 0.92, borderRadius: 2 });
      return new Chart('histogram' + i, {
        type: 'bar',
        data: { labels: good.map((_, bin) => from(bin).toPrecision(3)), datasets: [bars('good', good, 'good'), bars('defective', defective, 'defective')] },
        options: {
          interaction: { mode: 'index', intersect: false },
          plugins: {
            threshold: { at: threshold === null ? null : threshold / good.length, colour: style('accent') },
            legend: { labels: { boxWidth: 10, boxHeight: 10, useBorderRadius: true, borderRadius: 3, font: { size: 11 } } },
            tooltip: { filter: ({ raw }) => raw > 0, callbacks: { title: ([item]) => item ? 'score ' + from(item.dataIndex).toPrecision(3) + ' to ' + from(item.dataIndex + 1).toPrecision(3) : '' } },
          },
          scales: { x: { stacked: true, grid: { display: false }, ticks: { maxTicksLimit: 6, maxRotation: 0 } }, y: { stacked: true, ticks: { precision: 0, maxTicksLimit: 5 } } },
        },
        plugins: [thresholdLine],
      });
    }),
  ];
}
draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
addEventListener('beforeprint', () => charts.forEach((chart) => chart.resize()));
`;
