/**
 * A real folder as the list of relative paths that data/layout.ts understands.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { compareCodePoints } from '../data/paths.ts';
import { InputError } from '../errors.ts';

/** What a folder of images to inspect can have below it; data sets are deeper. A mistyped `/` ends soon. */
const USUAL_DEPTH = 3;
const MOST_FILES = 2_000_000;

/**
 * All files in `folder` and `depth - 1` levels of subfolders below, as relative paths with forward slashes in code-point order.
 * Hidden files and folders are left out, links are followed, broken ones left out.
 * @throws InputError naming the folder, if it does not exist, is a file, can't be read or holds more than two million files.
 */
export async function listFolder(folder: string, depth = USUAL_DEPTH): Promise<string[]> {
  const paths: string[] = [];
  await walk(folder, '', depth, paths);
  return paths.sort(compareCodePoints);
}

async function walk(root: string, prefix: string, depth: number, paths: string[]): Promise<void> {
  const folder = prefix === '' ? root : join(root, prefix);
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) => {
    throw new InputError(`${folder}: ${unreadable(cause)}`, { file: folder, cause });
  });
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue;
    const path = prefix + entry.name;
    const kind = entry.isSymbolicLink() ? await stat(join(root, path)).catch(() => undefined) : entry;
    if (kind?.isFile()) paths.push(path);
    else if (kind?.isDirectory() && depth > 1) await walk(root, `${path}/`, depth - 1, paths);
    if (paths.length > MOST_FILES) throw new InputError(`${root}: it holds more than ${MOST_FILES} files; name the folder of the data set.`, { file: root });
  }
}

function unreadable(cause: unknown): string {
  switch ((cause as NodeJS.ErrnoException).code) {
    case 'ENOENT': return 'no such folder; check the path.';
    case 'ENOTDIR': return 'this is a file, but a folder of images is needed; name its folder.';
    case 'EACCES': case 'EPERM': return 'not allowed to read this folder; check its permissions.';
    default: return `the folder can't be read (${(cause as Error).message}).`;
  }
}
