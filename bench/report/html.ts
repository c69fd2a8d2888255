/**
 * Results as one page that needs nothing else: the roofline of every kernel, this engine against its peers, the targets and
 * all numbers. Charts are drawn by Chart.js, whose text is put into the page.
 */
import { median, secondsOf, type Measurement } from '../measurement.ts';
import { rateOf, type Results } from '../results.ts';
import type { Target } from '../targets.ts';
import { heading, resultsTable, targetLine } from './text.ts';

const escape = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
/** JSON inside a script element. */
const embed = (value: unknown): string => JSON.stringify(value).replace(/</g, '\\u003c');

interface Point {
  /** FLOP for each byte that must move. */
  readonly x: number;
  /** FLOP/s. */
  readonly y: number;
  readonly label: string;
}

function rooflines({ measurements, peaks }: Results): { group: string; points: Point[] }[] {
  const kernels = measurements.filter((m) => m.suite === 'kernels' && m.failure === undefined && m.flops && m.bytes && secondsOf(m));
  return [...new Set(kernels.map(({ group }) => group))].map((group) => ({
    group,
    points: kernels.filter((m) => m.group === group).map((m) => ({
      x: m.flops! / m.bytes!, y: m.flops! / median(m.samples), label: `${m.title}: ${((rateOf(m, peaks)?.ofPeak ?? 0) * 100).toFixed(0)} % of the roof`,
    })),
  }));
}

function races({ measurements }: Results): { title: string; bars: { label: string; seconds: number }[] }[] {
  const raced = measurements.filter((m) => m.suite === 'peers' && secondsOf(m) !== undefined && !m.id.includes('cold-start'));
  const cold: Measurement[] = measurements.filter((m) => /cold-start.*\/total$/.test(m.id) && secondsOf(m) !== undefined);
  const groups = [...new Set(raced.map(({ group }) => group))];
  const bars = (list: readonly Measurement[]) => [...list].sort((a, b) => Number(b.contender.startsWith('ours')) - Number(a.contender.startsWith('ours'))).map((m) => ({ label: m.contender.replace(/^ours/, 'this engine'), seconds: secondsOf(m)! }));
  return [
    ...groups.map((group) => ({ title: group, bars: bars(raced.filter((m) => m.group === group)) })),
    ...(cold.length > 1 ? [{ title: cold[0]!.group, bars: bars(cold) }] : []),
  ];
}

const racesSection = (count: number): string => `<h2>Against the peers</h2>
<p>Medians; less is better.</p>
<div class="races">${Array.from({ length: count }, (_, i) => `<div><canvas id="race${i}"></canvas></div>`).join('')}</div>`;

const rooflineSection = `<h2>Roofline</h2>
<p>Each point is a kernel: how many operations it does for each byte that it must move, and how many a second. The line is what the adapter allows: bandwidth on the left, multiply-adds on the right. Points above it work on values that the caches still hold.</p>
<div id="roofline"><canvas></canvas></div>`;

/** @param chartLibrary the text of Chart.js as a script */
export function resultsPage(results: Results, targets: readonly Target[], chartLibrary: string): string {
  const data = { peaks: results.peaks ?? null, rooflines: rooflines(results), races: races(results) };
  const verdictClass = (target: Target): string => (target.verdict === 'met' ? 'met' : target.verdict === 'missed' ? 'missed' : 'open');
  const targetRows = targets.map((t) => `<tr class="${verdictClass(t)}"><td>${t.line}</td>${targetLine(t).map((cell) => `<td>${escape(cell)}</td>`).join('')}</tr>`).join('\n');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>inp-former-webgpu: benchmark on ${escape(results.adapter.name)}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1d2430; background: #fff; }
  h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
  pre { overflow-x: auto; font-size: 12px; line-height: 1.4; background: #f5f6f8; padding: 1rem; }
  table { border-collapse: collapse; font-size: 13px; } td, th { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #e3e6ea; }
  .met td:nth-child(5) { color: #17703a; } .missed td:nth-child(5) { color: #b3261e; font-weight: 600; } .open td { color: #77808c; }
  .races { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.5rem; }
  .races > div { height: 16rem; } #roofline { height: 30rem; }
</style>
</head>
<body>
<h1>inp-former-webgpu: benchmark</h1>
<p>${heading(results).split('\n').map(escape).join('<br>')}</p>
${data.races.length === 0 ? '' : racesSection(data.races.length)}
${data.rooflines.length === 0 ? '' : rooflineSection}
<h2>Targets</h2>
<table><thead><tr><th></th><th>target</th><th>value</th><th>limit</th><th>verdict</th><th></th></tr></thead><tbody>
${targetRows}
</tbody></table>
<h2>All results</h2>
<pre>${escape(resultsTable(results))}</pre>
<script>${chartLibrary.replace(/<\/script/gi, '<\\/script')}</script>
<script id="data" type="application/json">${embed(data)}</script>
<script>
const { peaks, rooflines, races } = JSON.parse(document.getElementById('data').textContent);
const colours = ['#2563eb', '#d97706', '#059669', '#9333ea', '#dc2626', '#0891b2', '#65a30d', '#be185d'];
const si = (value, unit) => { const e = Math.min(5, Math.max(0, Math.floor(Math.log10(value) / 3))); return Number((value / 1000 ** e).toPrecision(3)) + ' ' + ['', 'k', 'M', 'G', 'T', 'P'][e] + unit; };
const seconds = (s) => s === 0 ? '0' : s >= 1 ? Number(s.toPrecision(3)) + ' s' : s >= 1e-3 ? Number((s * 1e3).toPrecision(3)) + ' ms' : Number((s * 1e6).toPrecision(3)) + ' µs';
Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
races.forEach(({ title, bars }, i) => new Chart('race' + i, {
  type: 'bar',
  data: { labels: bars.map((b) => [b.label, seconds(b.seconds)]), datasets: [{ data: bars.map((b) => b.seconds), backgroundColor: bars.map((b) => b.label.startsWith('this engine') ? colours[0] : '#9aa4b2') }] },
  options: { indexAxis: 'y', plugins: { legend: { display: false }, title: { display: true, text: title } }, scales: { x: { beginAtZero: true, ticks: { callback: seconds, maxTicksLimit: 5, maxRotation: 0 } }, y: { ticks: { font: { size: 10 } } } } },
}));
const points = rooflines.flatMap((r) => r.points);
if (points.length > 0) {
  const [low, high] = [Math.min(...points.map((p) => p.x)) / 2, Math.max(...points.map((p) => p.x)) * 2];
  const ridge = peaks ? peaks.flops / peaks.bandwidth : 0;
  const roof = peaks ? [low, ...(ridge > low && ridge < high ? [ridge] : []), high].map((x) => ({ x, y: Math.min(peaks.flops, x * peaks.bandwidth) })) : [];
  new Chart(document.querySelector('#roofline canvas'), {
    type: 'scatter',
    data: { datasets: [
      { label: 'roof', data: roof, showLine: true, borderColor: '#1d2430', borderWidth: 1.5, pointRadius: 0 },
      ...rooflines.map(({ group, points }, i) => ({ label: group, data: points, backgroundColor: colours[i % colours.length] + 'b0', pointRadius: 4 })),
    ] },
    options: {
      plugins: { tooltip: { callbacks: { label: ({ raw }) => raw.label ? raw.label + ', ' + si(raw.y, 'FLOP/s') : si(raw.y, 'FLOP/s') } } },
      scales: { x: { type: 'logarithmic', title: { display: true, text: 'FLOP for each byte' }, ticks: { maxTicksLimit: 10 } }, y: { type: 'logarithmic', title: { display: true, text: 'FLOP/s' }, ticks: { callback: (v) => si(v, ''), maxTicksLimit: 10 } } },
    },
  });
}
</script>
</body>
</html>
`;
}
