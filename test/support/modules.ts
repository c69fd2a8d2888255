/**
 * What TypeScript files import, read off their text: it sorts the tests into suites (vitest.config.ts) and holds the
 * rooms to their arrows (test/architecture.test.ts). A regular expression is enough, because imports are written one way
 * here: at the start of a line, with single quotes.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

export const projectRoot = fileURLToPath(new URL('../../', import.meta.url));

export interface Import {
  /** As written. */
  readonly specifier: string;
  /** Path from the project root with forward slashes, for relative imports. */
  readonly file: string | undefined;
  /** `import type`, which leaves nothing at run time. */
  readonly typeOnly: boolean;
}

/** Paths from the project root, with forward slashes, sorted; none where there is no such folder. */
export function filesUnder(folder: string, ending = '.ts'): string[] {
  if (!existsSync(join(projectRoot, folder))) return [];
  return readdirSync(join(projectRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith(ending))
    .map((path) => posix.join(folder, path.split(sep).join('/')))
    .sort();
}

export function readSource(file: string): string {
  return readFileSync(join(projectRoot, file), 'utf8');
}

const importPattern = /^(?:import|export)(\s+type)?\s(?:[^;'"]*?\sfrom\s)?\s*'([^']+)'|\bimport\('([^']+)'\)/gm;

export function importsOf(file: string): Import[] {
  return [...readSource(file).matchAll(importPattern)].map(([, type, fixed, dynamic]) => {
    const specifier = fixed ?? dynamic!;
    return { specifier, typeOnly: type !== undefined, file: specifier.startsWith('.') ? posix.join(posix.dirname(file), specifier) : undefined };
  });
}

/** All files of the same top folder that a file imports, directly or through others, itself included. */
export function closureOf(file: string): Set<string> {
  const folder = `${file.split('/')[0]}/`;
  const found = new Set([file]);
  for (const next of found) {
    // An import that leads nowhere is the compiler's to report, and vitest's of that one file.
    for (const { file: imported } of importsOf(next)) if (imported?.startsWith(folder) && existsSync(join(projectRoot, imported))) found.add(imported);
  }
  return found;
}
