/**
 * What a page or a Node process is told to do, one task at a time. A session keeps its engine from task to task; cold
 * starts are tasks of sessions that do nothing else.
 */
import { Engine } from '../src/engine.ts';
import type { AdapterReport } from '../src/gpu/context.ts';
import type { Suite } from './measurement.ts';
import type { Bench, Platform, Settings } from './suites/bench.ts';
import { kernels } from './suites/kernels.ts';
import { coldStart, model } from './suites/model.ts';
import { measurePeaks, type Peaks } from './suites/peaks.ts';
import { peerColdStart, peers } from './suites/peers.ts';
import { watchTraffic } from './suites/traffic.ts';
import { train } from './suites/train.ts';

export type Task =
  | { readonly name: 'identify' }
  | { readonly name: 'peaks'; readonly settings: Settings }
  | { readonly name: 'suite'; readonly suite: Exclude<Suite, 'peaks'>; readonly settings: Settings; readonly peaks: Peaks }
  | { readonly name: 'coldStart' }
  | { readonly name: 'peerColdStart'; readonly peer: string };

/** What `identify` and `peaks` answer; the others report as they go. */
export type TaskResult = AdapterReport | Peaks | undefined;

const suites: Readonly<Record<Exclude<Suite, 'peaks'>, (bench: Bench) => Promise<void>>> = { kernels, model, train, peers };
let engine: Promise<Engine> | undefined;

export async function runTask(task: Task, platform: Platform): Promise<TaskResult> {
  const ownEngine = () => (engine ??= Engine.create({ gpu: platform.gpu }));
  switch (task.name) {
    case 'identify':
      return (await ownEngine()).adapter;
    case 'peaks':
      return measurePeaks(await ownEngine(), platform, task.settings);
    case 'suite': {
      const { settings, peaks } = task;
      const own = await ownEngine();
      await suites[task.suite]({ platform, engine: own, tune: !settings.quick, traffic: watchTraffic(own.context.device), settings, peaks });
      return undefined;
    }
    case 'coldStart':
      await coldStart(platform);
      return undefined;
    case 'peerColdStart':
      await peerColdStart(platform, task.peer);
      return undefined;
  }
}
