/** The fastest kernel variants of this machine's adapters, in a file of the cache folder each. */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TuningStore } from '../graph/autotune.ts';
import type { AdapterChoice } from './adapter.ts';
import { defaultCacheDir } from './encoder-store.ts';
import { writeFileAtomic } from './files.ts';

/** A cache that can't be read or written costs a measurement next time, and nothing else: it is no error. */
export function tuningFile(adapter: AdapterChoice): TuningStore {
  const path = join(defaultCacheDir(), `tuning-${adapter}.json`);
  return {
    load: () => readFile(path, 'utf8').catch(() => undefined),
    save: async (text) => {
      try {
        await mkdir(dirname(path), { recursive: true });
        await writeFileAtomic(path, text);
      } catch {
        // As said above.
      }
    },
  };
}
