/** Two results files of one device: how long everything takes in the second against the first. */
import { UsageError } from '../src/errors.ts';
import { secondsOf } from './measurement.ts';
import { find, type Results } from './results.ts';

export interface Change {
  readonly id: string;
  readonly before: number | undefined;
  readonly after: number | undefined;
  /** Time after over time before. */
  readonly ratio: number | undefined;
  readonly verdict: 'slower' | 'faster' | 'same' | 'failed' | 'only before' | 'only after';
}

/**
 * @param threshold what counts as a change, as a share: 0.1 is ten per cent
 * @throws UsageError where the two come from different devices
 */
export function compare(before: Results, after: Results, threshold: number): Change[] {
  for (const key of ['runtime', 'adapter'] as const) {
    const [a, b] = key === 'runtime' ? [before.runtime, after.runtime] : [before.adapter.name, after.adapter.name];
    if (a !== b) throw new UsageError(`The two runs can't be compared: the first is of ${a}, the second of ${b}. Compare runs of one device and runtime.`);
  }
  const ids = [...new Set([...before.measurements, ...after.measurements].filter(({ contender, suite }) => contender.startsWith('ours') && suite !== 'peaks').map(({ id }) => id))];
  return ids.map((id): Change => {
    const [a, b] = [find(before, id), find(after, id)];
    const [from, to] = [secondsOf(a), secondsOf(b)];
    const ratio = from !== undefined && to !== undefined ? to / from : undefined;
    const verdict = b?.failure !== undefined && a?.failure === undefined ? 'failed'
      : to === undefined ? 'only before'
        : from === undefined ? 'only after'
          : ratio! > 1 + threshold ? 'slower' : ratio! < 1 / (1 + threshold) ? 'faster' : 'same';
    return { id, before: from, after: to, ratio, verdict };
  });
}

export const isRegression = ({ verdict }: Change): boolean => verdict === 'slower' || verdict === 'failed';
