/**
 * Files that are either whole or not there. Writing goes to a new file beside the target, is flushed to the disk and
 * then renamed over it, so that a crash, a full disk or Ctrl-C leaves the old file, or none. What the operating system
 * reports is turned into an InputError that names the file and what to do.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { InputError } from '../errors.ts';

/**
 * Writes `bytes` to `path` atomically; the folder must exist.
 * @throws {InputError} when the disk is full, the place is not writable or is a folder; nothing is left behind
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string): Promise<void> {
  const beside = `${path}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    const handle = await open(beside, 'wx');
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(beside, path);
  } catch (error) {
    await rm(beside, { force: true }).catch(() => {}); // the first error is the one to report
    throw fileError(path, error, 'written');
  }
}

/**
 * Makes a folder, and those above it, where it is missing.
 * @throws {InputError} when the place is not writable or a part of the path is a file
 */
export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true }).catch((cause: unknown) => {
    throw fileError(path, cause, 'written');
  });
}

/**
 * Reads a whole file.
 * @throws {InputError} when it does not exist, is a folder, is empty or can't be read
 */
export async function readFileChecked(path: string): Promise<Uint8Array<ArrayBuffer>> {
  let buffer: Buffer<ArrayBuffer>;
  try {
    buffer = (await readFile(path)) as Buffer<ArrayBuffer>;
  } catch (error) {
    throw fileError(path, error, 'read');
  }
  if (buffer.length === 0) throw new InputError(`${path} is empty (0 bytes).`, { file: path });
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
}

/** What went wrong with a file, and what to do about it, as the error to throw. */
export function fileError(path: string, error: unknown, action: 'read' | 'written'): InputError {
  const system = (error as NodeJS.ErrnoException | undefined)?.code;
  const reasons: Record<string, string> = {
    ENOSPC: 'the disk is full: free some space or choose another place',
    EDQUOT: 'your disk quota is used up: free some space or choose another place',
    EFBIG: 'the file system does not take a file of this size: choose another place',
    EACCES: 'permission is denied: check the permissions of the file and its folder',
    EPERM: 'permission is denied: check the permissions of the file and its folder',
    EROFS: 'the file system is read-only: choose another place',
    ENOENT: action === 'read' ? 'there is no such file: check the path' : 'its folder does not exist: create it first',
    ENOTDIR: 'a part of the path is a file, not a folder: check the path',
    EISDIR: 'it is a folder, expected a file',
    ENOTEMPTY: 'it is a folder, expected a file',
    EEXIST: 'it is a folder, expected a file',
    ERR_FS_FILE_TOO_LARGE: 'it is larger than 2 GiB, which is too large to read at once',
  };
  const reason = (system !== undefined && reasons[system]) || `the system reports ${error instanceof Error ? error.message : String(error)}`;
  return new InputError(`${path} can't be ${action}: ${reason}.`, { file: path, cause: error });
}
