/** Features that memory has no room for, in a file of the page's own (the origin private file system): one slot an image. */
import type { SpillStore } from '../../../src/browser/index.ts';

const name = 'features';

/** Of workers only, so TypeScript's types of a page lack it. */
interface SyncFile {
  createSyncAccessHandle(): Promise<{
    truncate(bytes: number): void;
    write(data: ArrayBufferView, options: { at: number }): number;
    read(data: ArrayBufferView, options: { at: number }): number;
    close(): void;
  }>;
}

export async function openSpill(): Promise<SpillStore> {
  const folder = await navigator.storage.getDirectory();
  const handle = await folder.getFileHandle(name, { create: true });
  const file = await (handle as unknown as SyncFile).createSyncAccessHandle();
  file.truncate(0);
  return {
    async write(index, values) {
      file.write(values, { at: index * values.byteLength });
    },
    async read(index, length) {
      const values = new Float32Array(length);
      file.read(values, { at: index * values.byteLength });
      return values;
    },
    async dispose() {
      file.close();
      await folder.removeEntry(name).catch(() => undefined);
    },
  };
}
