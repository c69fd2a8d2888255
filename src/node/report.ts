/**
 * One HTML file that shows what a model found: headline figures, metrics and times, the scores against the threshold, and
 * every image with its heat map. It needs nothing beside itself: styles are inline, pictures are data URIs, and there is
 * no script. All text is escaped.
 */
import type { Inspection } from '../inspect/inspector.ts';
import type { RasterImage } from '../data/image.ts';
import { averageMetrics, METRIC_NAMES, type EvaluationMetrics } from '../evaluate/evaluate.ts';
import { encodeJpeg } from './images.ts';

export interface ReportImage {
  readonly name: string;
  readonly score: number;
  readonly verdict: Inspection['verdict'];
  /** What it really is: 'good', or the kind of defect; absent where nobody knows. */
  readonly truth?: string;
  /** Data URIs, see {@link imageUri}. */
  readonly source: string;
  readonly overlay: string;
}

export interface ReportSection {
  readonly title: string;
  readonly description: string;
  readonly metrics?: EvaluationMetrics;
  readonly threshold: number;
  /** How the threshold came about. */
  readonly thresholdRule: string;
  readonly phases: readonly { readonly name: string; readonly seconds: number }[];
  readonly images: readonly ReportImage[];
}

export interface Report {
  readonly title: string;
  readonly subtitle: string;
  readonly figures: readonly { readonly label: string; readonly value: string; readonly note?: string }[];
  readonly sections: readonly ReportSection[];
  /** Names and values at the end: adapter, encoder, settings. */
  readonly details: readonly (readonly [string, string])[];
}


/** A picture as a JPEG data URI. */
export async function imageUri(image: RasterImage): Promise<string> {
  return `data:image/jpeg;base64,${Buffer.from(await encodeJpeg(image, 82)).toString('base64')}`;
}

export function renderReport({ title, subtitle, figures, sections, details }: Report): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${escapeHtml(title)}</h1>
<p>${escapeHtml(subtitle)}</p>
</header>
<main>
<section class="figures" aria-label="Headline figures">
${figures.map(({ label, value, note }) => `<div class="figure"><span class="label">${escapeHtml(label)}</span><strong>${escapeHtml(value)}</strong>${note === undefined ? '' : `<span class="note">${escapeHtml(note)}</span>`}</div>`).join('\n')}
</section>
${sections.some(({ metrics }) => metrics) ? metricsTable(sections) : ''}
${timesTable(sections)}
${sections.map(renderSection).join('\n')}
<section class="card">
<h2>Details</h2>
<dl>${details.map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`).join('\n')}</dl>
</section>
</main>
</body>
</html>
`;
}

function metricsTable(sections: readonly ReportSection[]): string {
  const measured = sections.flatMap(({ title, metrics }) => (metrics ? [[title, metrics] as const] : []));
  const rows = measured.length > 1 ? [...measured, ['Mean', averageMetrics(measured.map(([, metrics]) => metrics))] as const] : measured;
  const cell = (value: number | null) => `<td>${value === null ? '–' : value.toFixed(3)}</td>`;
  return `<section class="card"><h2>Metrics</h2><div class="scroll"><table>
<thead><tr><th scope="col"></th>${METRIC_NAMES.map(([, name]) => `<th scope="col">${name}</th>`).join('')}</tr></thead>
<tbody>${rows.map(([title, metrics], i) => `<tr${i === measured.length ? ' class="total"' : ''}><th scope="row">${escapeHtml(title)}</th>${METRIC_NAMES.map(([key]) => cell(metrics[key])).join('')}</tr>`).join('\n')}</tbody>
</table></div></section>`;
}

function timesTable(sections: readonly ReportSection[]): string {
  const phases = [...new Set(sections.flatMap(({ phases }) => phases.map(({ name }) => name)))];
  if (phases.length === 0) return '';
  const seconds = (section: ReportSection, phase: string) => section.phases.filter(({ name }) => name === phase).reduce((sum, { seconds }) => sum + seconds, 0);
  return `<section class="card"><h2>Time</h2><div class="scroll"><table>
<thead><tr><th scope="col"></th>${phases.map((phase) => `<th scope="col">${escapeHtml(phase)}</th>`).join('')}<th scope="col">Total</th></tr></thead>
<tbody>${sections.map((section) => `<tr><th scope="row">${escapeHtml(section.title)}</th>${phases.map((phase) => `<td>${seconds(section, phase).toFixed(1)} s</td>`).join('')}<td>${section.phases.reduce((sum, phase) => sum + phase.seconds, 0).toFixed(1)} s</td></tr>`).join('\n')}</tbody>
</table></div></section>`;
}

function renderSection(section: ReportSection): string {
  const { title, description, threshold, thresholdRule, images } = section;
  // What matters first: the wrong verdicts, then from the highest score down.
  const ordered = [...images].sort((a, b) => Number(isWrong(b)) - Number(isWrong(a)) || b.score - a.score);
  const highest = Math.max(threshold, ...images.map(({ score }) => score)) * 1.05;
  const wrong = images.filter(isWrong).length;
  const known = images.filter(({ truth }) => truth !== undefined).length;
  return `<section class="card">
<h2>${escapeHtml(title)}</h2>
<p>${escapeHtml(description)}</p>
<p>Threshold <strong>${threshold.toPrecision(4)}</strong>: ${escapeHtml(thresholdRule)}.${known > 0 ? ` ${known - wrong} of ${known} verdicts are right.` : ''}</p>
${histogram(images, threshold)}
<ul class="gallery">
${ordered.map((image) => renderImage(image, threshold, highest)).join('\n')}
</ul>
</section>`;
}

function isWrong({ truth, verdict }: ReportImage): boolean {
  return truth !== undefined && verdict !== 'unjudged' && (truth === 'good') !== (verdict === 'good');
}

function renderImage(image: ReportImage, threshold: number, highest: number): string {
  const { name, score, verdict, truth, source, overlay } = image;
  const percent = (value: number) => `${Math.min(100, Math.max(0, (100 * value) / highest)).toFixed(1)}%`;
  const outcome = truth === undefined ? '' : isWrong(image) ? `<span class="badge wrong">${verdict === 'good' ? 'missed' : 'false alarm'}</span>` : '<span class="badge right">right</span>';
  return `<li${isWrong(image) ? ' class="wrong"' : ''}>
<div class="pair"><img src="${escapeHtml(source)}" alt="${escapeHtml(name)}" loading="lazy"><img src="${escapeHtml(overlay)}" alt="Heat map of ${escapeHtml(name)}" loading="lazy"></div>
<div class="meter" role="img" aria-label="Score ${score.toFixed(4)}, threshold ${threshold.toFixed(4)}"><span class="${verdict}" style="width:${percent(score)}"></span><i style="left:${percent(threshold)}"></i></div>
<div class="caption"><span>${escapeHtml(name)}${truth === undefined ? '' : ` <em>${escapeHtml(truth)}</em>`}</span>${outcome}</div>
<div class="caption"><span class="${verdict}-text">${verdict}</span><span>score ${score.toFixed(4)}</span></div>
</li>`;
}

/** Counts of scores in 32 bins, good and defective one upon the other, with the threshold as a line. */
function histogram(images: readonly ReportImage[], threshold: number): string {
  if (images.length === 0) return '';
  const bins = 32;
  const width = 640;
  const height = 120;
  const scores = images.map(({ score }) => score);
  const low = Math.min(threshold, ...scores);
  const high = Math.max(threshold, ...scores);
  const margin = 0.04 * (high - low) || 1;
  const from = low - margin;
  const span = high - low + 2 * margin;
  const kinds = ['good', 'defective', 'unknown'] as const;
  const counts = kinds.map(() => Array.from({ length: bins }, () => 0));
  for (const { score, truth } of images) {
    const kind = truth === undefined ? 2 : truth === 'good' ? 0 : 1;
    counts[kind]![Math.min(bins - 1, Math.floor(((score - from) / span) * bins))]!++;
  }
  const tallest = Math.max(...counts[0]!.map((count, bin) => count + counts[1]![bin]! + counts[2]![bin]!));
  const bars: string[] = [];
  for (let bin = 0; bin < bins; bin++) {
    let top = height;
    kinds.forEach((kind, k) => {
      const barHeight = (counts[k]![bin]! / tallest) * (height - 12);
      top -= barHeight;
      if (barHeight > 0) bars.push(`<rect class="${kind}" x="${((bin * width) / bins + 1).toFixed(1)}" y="${top.toFixed(1)}" width="${(width / bins - 2).toFixed(1)}" height="${barHeight.toFixed(1)}"/>`);
    });
  }
  const line = ((threshold - from) / span) * width;
  // Clear of the figures at both ends of the axis.
  const label = Math.min(width - 90, Math.max(90, line));
  const present = kinds.filter((_, k) => counts[k]!.some((count) => count > 0));
  return `<figure class="histogram">
<svg viewBox="0 0 ${width} ${height + 18}" role="img" aria-label="Histogram of the scores with the threshold">
${bars.join('\n')}
<line class="axis" x1="0" y1="${height}" x2="${width}" y2="${height}"/>
<line class="threshold" x1="${line.toFixed(1)}" y1="0" x2="${line.toFixed(1)}" y2="${height}"/>
<text x="0" y="${height + 14}">${from.toPrecision(3)}</text><text x="${width}" y="${height + 14}" text-anchor="end">${(from + span).toPrecision(3)}</text>
<text x="${label.toFixed(1)}" y="${height + 14}" text-anchor="middle">threshold</text>
</svg>
<figcaption>Scores of ${images.length} images: ${present.map((kind) => `<span class="key ${kind}"></span>${kind === 'unknown' ? 'images' : kind}`).join(' ')}</figcaption>
</figure>`;
}

export function escapeHtml(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (character) => entities[character]!);
}

export const STYLE = `
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --ink: #1b1f27; --soft: #5c6472; --line: #e0e3e9; --good: #2f8f6b; --defective: #d9512c; --unknown: #5f7fb8; --accent: #3b5bdb; }
@media (prefers-color-scheme: dark) { :root { --page: #12141a; --card: #1b1e26; --ink: #e9ebf0; --soft: #9aa3b2; --line: #2d323d; --good: #53c79a; --defective: #ff7a52; --unknown: #86a5e0; --accent: #8ea6ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 36px; }
h1 { margin: 0; font-size: 28px; letter-spacing: -.02em; }
h2 { margin: 0 0 8px; font-size: 18px; letter-spacing: -.01em; }
header p, .note, figcaption, dt, em { color: var(--soft); }
p { margin: 4px 0 12px; max-width: 80ch; }
em { font-style: normal; }
.card, .figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 20px; margin: 0 0 20px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 14px; margin: 20px 0; }
.figure { padding: 14px 18px; display: flex; flex-direction: column; }
.figure .label { color: var(--soft); font-size: 13px; }
.figure strong { font-size: 26px; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.figure .note { font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } thead th { color: var(--soft); font-size: 13px; } th:first-child { text-align: left; padding-left: 0; }
tr.total td, tr.total th { border-bottom: 0; font-weight: 700; }
.histogram { margin: 12px 0 20px; max-width: 760px; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 11px; } svg .axis { stroke: var(--line); } svg .threshold { stroke: var(--accent); stroke-width: 2; stroke-dasharray: 4 3; }
rect.good, .key.good, .meter .good { fill: var(--good); background: var(--good); }
rect.defective, .key.defective, .meter .defective { fill: var(--defective); background: var(--defective); }
rect.unknown, .key.unknown { fill: var(--unknown); background: var(--unknown); }
figcaption { font-size: 13px; margin-top: 4px; } .key { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin: 0 5px 0 10px; }
.gallery { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px; }
.gallery li { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; padding-bottom: 8px; font-size: 13px; }
.gallery li.wrong { border-color: var(--defective); box-shadow: 0 0 0 1px var(--defective); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; background: var(--line); } .pair img { width: 100%; display: block; }
.meter { position: relative; height: 6px; background: var(--line); margin-bottom: 8px; } .meter span { display: block; height: 100%; } .meter i { position: absolute; top: -2px; width: 2px; height: 10px; background: var(--accent); }
.caption { display: flex; align-items: flex-start; justify-content: space-between; gap: 8px; padding: 0 12px; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.good-text { color: var(--good); font-weight: 600; } .defective-text { color: var(--defective); font-weight: 600; }
.badge { border-radius: 99px; padding: 0 9px; border: 1px solid currentColor; white-space: nowrap; } .badge.right { color: var(--good); } .badge.wrong { color: var(--defective); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; } dd { margin: 0; overflow-wrap: anywhere; }
@media print { .card, .figure { break-inside: avoid; } }
`;
