/** The file that a command will write: finds out first, not after the work, that it can't be. */
import { rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InputError } from '../../errors.ts';
import { makeFolder, writeFileAtomic } from '../files.ts';

/**
 * Makes the folder of `out` where it is missing, and tries to write there.
 * @param kind what the file is, e.g. `model file`
 * @param example a usual name for it
 * @throws InputError
 */
export async function prepareOutputFile(out: string, kind: string, example: string, option = '--out'): Promise<void> {
  if (await stat(out).then((info) => info.isDirectory(), () => false)) {
    throw new InputError(`${out}: this is a folder; ${option} names the ${kind}, e.g. ${join(out, example)}.`, { file: out });
  }
  await makeFolder(dirname(out));
  const probe = `${out}.${process.pid}.tmp`;
  await writeFileAtomic(probe, 'inp-former\n');
  await rm(probe, { force: true });
}
