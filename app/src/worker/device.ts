/**
 * The one device of the worker, and how its loss is survived: whatever was running starts again on a new one. Chrome
 * needs a moment after its GPU process has crashed until there is an adapter again.
 */
import { createBrowserEngine, DeviceLostError, AdapterError, type Engine } from '../../../src/browser/index.ts';
import { tell } from './events.ts';

/** Losses in a row, without anything finished between them, after which it is no accident. */
const mostLosses = 5;
const adapterPatience = 15_000;

let current: Promise<Engine> | undefined;
let generation = 0;
let lossesInARow = 0;

/** Goes up with each new device: what was made on an earlier one is gone. */
export const deviceGeneration = (): number => generation;

export function device(): Promise<Engine> {
  if (!current) {
    const acquiring = acquire(generation > 0 ? adapterPatience : 0);
    current = acquiring;
    acquiring.then(
      (engine) => engine.onLost(() => replace(acquiring)),
      () => { if (current === acquiring) current = undefined; },
    );
  }
  return current;
}

async function acquire(patience: number): Promise<Engine> {
  const deadline = performance.now() + patience;
  for (;;) {
    try {
      const engine = await createBrowserEngine();
      // Any but the first is asked for because one was lost, and told so.
      if (generation++ > 0) tell({ kind: 'gpu', state: 'recovered' });
      return engine;
    } catch (error) {
      if (!(error instanceof AdapterError) || performance.now() > deadline) throw error;
      await new Promise((resolve) => { setTimeout(resolve, 300); });
    }
  }
}

/** Tells the loss of a device and gets the next one, whether anything was running or not. Whoever notices it first calls this. */
function replace(lost: Promise<Engine>): void {
  if (current !== lost) return;
  current = undefined;
  tell({ kind: 'gpu', state: 'lost' });
  // Without one, the next work says so.
  if (++lossesInARow <= mostLosses) device().catch(() => undefined);
}

/** Something was finished: a later loss is a new one. */
export function madeProgress(): void {
  lossesInARow = 0;
}

/** Does the work, and does it again on a new device if the one it runs on is lost. */
export async function withDevice<T>(work: (engine: Engine) => Promise<T>): Promise<T> {
  for (;;) {
    const own = device();
    try {
      const result = await work(await own);
      madeProgress();
      return result;
    } catch (error) {
      if (!(error instanceof DeviceLostError) || error.reason === 'destroyed') throw error;
      replace(own);
      if (lossesInARow > mostLosses) {
        lossesInARow = 0;
        throw new DeviceLostError(error.reason, `The GPU was lost ${mostLosses + 1} times in a row. Close other programs that use it, or reload the page; what was saved is kept.`);
      }
    }
  }
}
