import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { listFolder } from '../../src/node/folders.ts';

let root: string;
const touch = (path: string): void => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), '');
};

beforeEach(() => { root = mkdtempSync(join(tmpdir(), 'folders-')); });
afterEach(() => { rmSync(root, { recursive: true, force: true }); });

describe('listFolder', () => {
  it('lists files three levels deep, sorted, without hidden ones', async () => {
    for (const path of ['test/good/b.png', 'test/good/a.png', 'z.txt', 'B.png', 'train/good/deep/er.png', '.git/x.png', 'train/.hidden.png']) touch(path);
    expect(await listFolder(root)).toEqual(['B.png', 'test/good/a.png', 'test/good/b.png', 'z.txt']);
  });

  it('follows links, leaves broken ones out and does not hang in circles', async () => {
    touch('real/a.png');
    symlinkSync(join(root, 'real'), join(root, 'linked'));
    symlinkSync(join(root, 'nowhere'), join(root, 'broken.png'));
    symlinkSync(root, join(root, 'real', 'circle'));
    const paths = await listFolder(root);
    expect(paths).toContain('real/a.png');
    expect(paths).toContain('linked/a.png');
    expect(paths).not.toContain('broken.png');
  });

  it('an empty folder has no files; a missing one and a file are errors that name it', async () => {
    expect(await listFolder(root)).toEqual([]);
    touch('a.png');
    await expect(listFolder(join(root, 'missing'))).rejects.toThrow(InputError);
    await expect(listFolder(join(root, 'missing'))).rejects.toThrow(/missing: no such folder/);
    await expect(listFolder(join(root, 'a.png'))).rejects.toThrow(/a\.png: this is a file/);
  });
});
