/** Where the golden set is. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { projectRoot } from './modules.ts';

/** The folder that INP_GOLDEN names, which must exist; else `../shared/golden` beside the project, or undefined where that is absent. */
export function goldenFolder(): string | undefined {
  const named = process.env['INP_GOLDEN'];
  const folder = named ? resolve(named) : resolve(projectRoot, '../shared/golden');
  if (existsSync(folder)) return folder;
  if (named) throw new Error(`INP_GOLDEN names ${folder}, which does not exist: correct it or unset it.`);
  return undefined;
}
