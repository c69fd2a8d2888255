/**
 * A race: everyone gets the same problem, is warmed up, then they take turns, so that what else goes on in the machine
 * meets all of them. Every timed result is read back and judged; one that is wrong, late or throws makes its contender's
 * entry a failure with its reason, and the race goes on without it.
 */
import { collect, errorText, timed, withTimeout, type Measurement } from '../measurement.ts';
import type { Racer, Variant } from '../peers/peer.ts';
import type { Bench } from './bench.ts';

export interface Contender {
  readonly name: string;
  create(): Promise<Racer>;
  /** In place of the race's. */
  readonly judge?: Judge;
}

/** What is wrong with the outputs, or undefined. */
export type Judge = (outputs: readonly Float32Array[], variant: Variant) => string | undefined;

export interface Race {
  /** The measurements are called `<id>/<contender>`. */
  readonly id: string;
  readonly group: string;
  readonly title: string;
  readonly flops: number;
  readonly images?: number;
  readonly contenders: readonly Contender[];
  readonly judge: Judge;
  readonly check: string;
}

interface Entry {
  readonly name: string;
  readonly racer: Racer;
  readonly judge: Judge;
  /** Runs in one sample: as many as make it long enough to be timed. */
  readonly runs: number;
  readonly values: Record<string, number>;
  readonly samples: number[];
  failure?: string;
}

/** A sample that is shorter than this is made of several runs, seconds. */
const shortestSample = 0.05;
const mostRuns = 64;
/** A contender whose run takes longer is sampled once: its time does not hang on a few per cent. */
const longRun = 8;

export const slug = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]+/g, '-');

export async function race(bench: Bench, problem: Race): Promise<void> {
  const { platform, settings, traffic } = bench;
  const entries: Entry[] = [];
  const failures = new Map<string, string>();
  const report = (name: string, fields: Partial<Measurement>): void => platform.report({
    id: `${problem.id}/${slug(name)}`, suite: 'peers', group: problem.group, title: problem.title, contender: name, clock: 'wall',
    samples: [], flops: problem.flops, check: problem.check, ...(problem.images !== undefined && { images: problem.images }), ...fields,
  });
  for (const contender of problem.contenders) {
    if (settings.reused.includes(`${problem.id}/${slug(contender.name)}`)) continue;
    platform.log(`${problem.title}: ${contender.name} gets ready`);
    try {
      entries.push(await withTimeout(enter(contender, problem.judge), settings.peerTimeout, `${contender.name}: getting ready`));
    } catch (error) {
      failures.set(contender.name, errorText(error));
    }
  }
  // Own runs take turns with the peers'; one round more for each sample that the sampling wants.
  let round = 0;
  await collect(settings.sampling, async () => {
    const variant = (round++ % 2) as Variant;
    let spent = 0;
    for (const entry of entries) {
      if (entry.failure !== undefined || isDone(entry)) continue;
      try {
        const before = { ...traffic };
        const seconds = await withTimeout(timed(() => entry.racer.run(variant, entry.runs)), settings.peerTimeout, `${entry.name}: a run`);
        entry.values.dispatches = (traffic.dispatches - before.dispatches) / entry.runs;
        entry.values.submits = (traffic.submits - before.submits) / entry.runs;
        const wrong = entry.judge(await entry.racer.read(), variant);
        if (wrong === undefined) entry.samples.push(seconds / entry.runs);
        else entry.failure = wrong;
        spent += seconds;
      } catch (error) {
        entry.failure = errorText(error);
      }
    }
    return spent;
  });
  for (const { name } of problem.contenders) {
    const entry = entries.find((e) => e.name === name);
    const failure = entry?.failure ?? failures.get(name);
    if (entry || failure !== undefined) report(name, { samples: entry?.samples ?? [], values: entry?.values ?? {}, ...(failure !== undefined && { failure }) });
    // What has failed may not be able to clean up after itself; the failure is told already.
    try { entry?.racer.dispose(); } catch (error) { platform.log(`${name}: ${errorText(error)}`); }
  }
}

const isDone = ({ samples }: Entry): boolean => samples.some((seconds) => seconds > longRun);

/** Gets a contender ready: first run, judged, then a second one that shows how long a run is. */
async function enter({ name, create, judge: own }: Contender, common: Judge): Promise<Entry> {
  const judge = own ?? common;
  let racer: Racer | undefined;
  const values: Record<string, number> = {};
  values.prepareSeconds = await timed(async () => { racer = await create(); });
  const ready = racer!;
  values.firstRunSeconds = await timed(() => ready.run(0, 1));
  const first = judge(await ready.read(), 0);
  if (first !== undefined) throw new Error(first);
  const seconds = values.firstRunSeconds > longRun ? values.firstRunSeconds : await timed(() => ready.run(1, 1));
  return { name, racer: ready, judge, values, samples: [], runs: Math.max(1, Math.min(mostRuns, Math.ceil(shortestSample / seconds))) };
}
