/** Results as tables: for the terminal, and in Markdown for the README. */
import { byteSize, table, withPrefix } from '../../src/node/commands/context.ts';
import type { Change } from '../compare.ts';
import { median, minimum, secondsOf, type Measurement } from '../measurement.ts';
import { find, rateOf, type Results } from '../results.ts';
import type { Target } from '../targets.ts';

/** 12.3 ms, 4.56 s: three figures. */
export function time(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return '–';
  const [value, unit] = seconds >= 1 ? [seconds, 's'] : seconds >= 1e-3 ? [seconds * 1e3, 'ms'] : [seconds * 1e6, 'µs'];
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;
}

const percent = (share: number | undefined): string => (share === undefined ? '' : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`);

const counted = (count: number | undefined, one: string, many: string): string | false => (count === undefined ? false : `${count} ${count === 1 ? one : many}`);

/** Further numbers of a measurement that people ask for. */
function details({ values = {}, images, samples, reusedFrom }: Measurement): string {
  const parts = [
    counted(values.count, 'dispatch', 'dispatches'),
    counted(values.kernels, 'kernel', 'kernels'),
    counted(values.dispatches, 'dispatch', 'dispatches'),
    counted(values.submits, 'submit', 'submits'),
    values.encodeSeconds !== undefined && `encoded in ${time(values.encodeSeconds)}`,
    values.peakBytes !== undefined && byteSize(values.peakBytes),
    values.firstRunSeconds !== undefined && `first run ${time(values.firstRunSeconds)}`,
    images !== undefined && samples.length > 0 && `${(images / median(samples)).toPrecision(3)} images/s`,
    reusedFrom !== undefined && `of ${reusedFrom.slice(0, 10)}`,
  ];
  return parts.filter((part) => part !== false).join(', ');
}

export function resultsTable(results: Results): string {
  const groups = [...new Set(results.measurements.map(({ group }) => group))];
  const sections = groups.map((group) => {
    const inGroup = results.measurements.filter((m) => m.group === group);
    const isRace = inGroup.some(({ suite }) => suite === 'peers');
    const isOfParts = new Set(inGroup.map(({ title }) => title)).size > 1;
    const rows = inGroup.map((m) => {
      const what = [isRace && m.contender, (!isRace || isOfParts) && m.title].filter((part) => part !== false).join(': ');
      if (m.failure !== undefined) return [what, 'failed', '', '', '', m.failure];
      const rate = rateOf(m, results.peaks);
      return [what, time(minimum(m.samples)), time(median(m.samples)), rate ? withPrefix(rate.value, rate.unit) : '', percent(rate?.ofPeak), details(m)];
    });
    return `${group}\n${table(['', 'minimum', 'median', 'rate', 'of peak', ''], rows, [1, 2, 3, 4])}`;
  });
  if (results.leftOut.length > 0) sections.push(`Left out\n${table(['', 'why'], results.leftOut.map(({ what, why }) => [what, why]))}`);
  return sections.join('\n\n');
}

export function heading(results: Results): string {
  const { adapter, runtimeVersion, machine, peaks } = results;
  return [
    `${adapter.name}${adapter.isSoftware ? ' (software)' : ''}, ${runtimeVersion}, ${machine.processor}, ${machine.cores} cores, ${results.date}`,
    ...(peaks ? [`Peaks: ${withPrefix(peaks.flops, 'FLOP/s')} of multiply-adds, ${withPrefix(peaks.loads, 'B/s')} loading from the nearest cache, ${withPrefix(peaks.bandwidth, 'B/s')} copying`] : []),
  ].join('\n');
}

export function targetLine({ title, value, limit, atLeast, unit, verdict, note }: Target): string[] {
  const amount = (n: number): string => `${n >= 100 ? n.toFixed(0) : Number(n.toPrecision(3))}${unit === 'x' ? 'x' : unit === '' ? '' : ` ${unit}`}`;
  return [title, value === undefined ? '' : amount(value), `${atLeast ? 'at least' : 'at most'} ${amount(limit)}`, verdict, note ?? ''];
}

export function targetsTable(targets: readonly Target[]): string {
  return table(['', 'target', 'value', 'limit', 'verdict', ''], targets.map((target) => [String(target.line), ...targetLine(target)]), [2]);
}

export function changesTable(changes: readonly Change[]): string {
  const order = ['failed', 'slower', 'faster', 'same', 'only before', 'only after'];
  const sorted = [...changes].sort((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict) || (b.ratio ?? 0) - (a.ratio ?? 0));
  return table(['', 'before', 'after', 'ratio', ''], sorted.map(({ id, before, after, ratio, verdict }) =>
    [id, time(before), time(after), ratio === undefined ? '' : ratio.toFixed(3), verdict === 'same' ? '' : verdict]), [1, 2, 3]);
}

const markdown = (header: readonly string[], rows: readonly (readonly string[])[]): string =>
  [header, header.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

/** Tables for the README: ours against the peers, and the models. */
export function performanceTables(results: Results): string {
  const { measurements, adapter, runtimeVersion, machine, date } = results;
  const races = [...new Set(measurements.filter((m) => m.suite === 'peers' && !m.id.includes('cold-start')).map(({ group }) => group))];
  const contenders = [...new Set(measurements.filter((m) => m.suite === 'peers').map(({ contender }) => contender))];
  const sections = [`Medians on ${adapter.name}, ${runtimeVersion}, ${machine.processor}, ${machine.cores} cores, ${date.slice(0, 10)}.`];
  if (races.length > 0) {
    const cell = (group: string, contender: string): string => {
      const m = measurements.find((x) => x.suite === 'peers' && x.group === group && x.contender === contender);
      return m === undefined ? '' : m.failure !== undefined ? 'failed' : time(secondsOf(m));
    };
    sections.push(markdown(['', ...contenders.map((c) => c.replace(/^ours/, 'this engine'))], races.map((group) => {
      const { title } = measurements.find((m) => m.suite === 'peers' && m.group === group)!;
      return [group.startsWith('Inspection') ? group : `${group}, ${title}`, ...contenders.map((c) => cell(group, c))];
    })));
  }
  const batches = [...new Set(measurements.flatMap(({ id }) => /^model\/(.+)\/batch-1\/total$/.exec(id)?.[1] ?? []))];
  if (batches.length > 0) {
    const total = (model: string, batch: number): string => {
      const m = find(results, `model/${model}/batch-${batch}/total`);
      const seconds = secondsOf(m);
      return seconds === undefined ? '' : time(seconds / batch);
    };
    sections.push(markdown(['', 'an image alone', 'an image in a batch of 8', 'training, images/s', 'kernels', 'memory'], batches.map((model) => {
      const alone = find(results, `model/${model}/batch-1/total`);
      const step = find(results, `train/${model}/batch-8/step`);
      const seconds = secondsOf(step);
      return [
        model.replace('dinov2-small-', 'S ').replace('dinov2-base-', 'B ').replace('-', ' '), total(model, 1), total(model, 8), seconds === undefined ? '' : (8 / seconds).toPrecision(3),
        String(alone?.values?.kernels ?? ''), alone?.values?.peakBytes === undefined ? '' : byteSize(alone.values.peakBytes),
      ];
    })));
  }
  return `${sections.join('\n\n')}\n`;
}
