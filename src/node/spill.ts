/** Features that memory has no room for, in one temporary file: fixed-size records, removed at the end. */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SpillStore } from '../train/feature-cache.ts';
import { fileError } from './files.ts';

export async function openSpillFile(folder: string = tmpdir()): Promise<SpillStore> {
  const place = await mkdtemp(join(folder, 'inp-former-')).catch((cause: unknown) => { throw fileError(folder, cause, 'written'); });
  const path = join(place, 'features');
  const file = await open(path, 'w+');
  return {
    async write(index, values) {
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      const { bytesWritten } = await file.write(bytes, 0, bytes.length, index * bytes.length).catch((cause: unknown) => { throw fileError(path, cause, 'written'); });
      if (bytesWritten !== bytes.length) throw fileError(path, Object.assign(new Error('short write'), { code: 'ENOSPC' }), 'written');
    },
    async read(index, length) {
      const values = new Float32Array(length);
      const bytes = new Uint8Array(values.buffer);
      const { bytesRead } = await file.read(bytes, 0, bytes.length, index * bytes.length);
      if (bytesRead !== bytes.length) throw fileError(path, new Error(`${bytesRead} of ${bytes.length} bytes`), 'read');
      return values;
    },
    async dispose() {
      await file.close();
      await rm(place, { recursive: true, force: true });
    },
  };
}
