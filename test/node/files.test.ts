import { mkdtemp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { readFileChecked, writeFileAtomic } from '../../src/node/files.ts';

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof fs>();
  return { ...real, open: vi.fn(real.open) };
});

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-files-'));
});
afterEach(async () => {
  vi.mocked(fs.open).mockClear();
  await rm(folder, { recursive: true, force: true });
});

describe('writeFileAtomic', () => {
  it('writes and replaces, and leaves nothing beside', async () => {
    const path = join(folder, 'a.bin');
    await writeFileAtomic(path, 'old');
    await writeFileAtomic(path, new Uint8Array([1, 2, 3]));
    expect([...(await readFile(path))]).toEqual([1, 2, 3]);
    expect(await readdir(folder)).toEqual(['a.bin']);
  });

  it.each([
    ['ENOSPC', /disk is full/],
    ['EACCES', /permission is denied/],
    ['EIO', /the system reports/],
  ])('%s in the middle of the write keeps the old file and nothing else', async (code, message) => {
    const path = join(folder, 'a.bin');
    await writeFileAtomic(path, 'old');
    const { open } = await vi.importActual<typeof fs>('node:fs/promises');
    vi.mocked(fs.open).mockImplementationOnce(async (...args) => {
      const handle = await open(...args);
      handle.writeFile = async () => {
        await handle.write('hal');
        throw Object.assign(new Error(code), { code });
      };
      return handle;
    });
    const error: unknown = await writeFileAtomic(path, 'new').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).message).toMatch(message);
    expect((error as InputError).file).toBe(path);
    expect(await readFile(path, 'utf8')).toBe('old');
    expect(await readdir(folder)).toEqual(['a.bin']);
  });

  it('names what is wrong with the place', async () => {
    await expect(writeFileAtomic(join(folder, 'none', 'a.bin'), 'x')).rejects.toThrow(/its folder does not exist/);
    await mkdir(join(folder, 'sub'));
    await expect(writeFileAtomic(join(folder, 'sub'), 'x')).rejects.toThrow(/it is a folder/);
    expect(await readdir(folder)).toEqual(['sub']);
  });
});

describe('readFileChecked', () => {
  it('reads a file', async () => {
    await writeFile(join(folder, 'a.bin'), 'abc');
    expect([...(await readFileChecked(join(folder, 'a.bin')))]).toEqual([97, 98, 99]);
  });

  it('names what is wrong', async () => {
    await writeFile(join(folder, 'empty'), '');
    await expect(readFileChecked(join(folder, 'none'))).rejects.toThrow(/none can't be read: there is no such file/);
    await expect(readFileChecked(folder)).rejects.toThrow(/it is a folder, expected a file/);
    await expect(readFileChecked(join(folder, 'empty', 'x'))).rejects.toThrow(/not a folder/);
    await expect(readFileChecked(join(folder, 'empty'))).rejects.toThrow(/is empty/);
  });
});
