#!/usr/bin/env node
// The command `inp-former`: the built command line, or, where it can't be loaded, what to do about it.
import { existsSync } from 'node:fs';

const entry = new URL('../dist/src/node/cli.js', import.meta.url);
if (!existsSync(entry)) {
  process.stderr.write('inp-former is not built: run `npm ci` and `npm run build` in its folder first.\n');
  process.exit(1);
}
let cli;
try {
  cli = await import(entry.href);
} catch (error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  process.stderr.write(`inp-former can't be loaded: ${error.message}\nThe command line needs its optional packages: run \`npm install\` without --omit=optional.\n`);
  process.exit(1);
}
await cli.main();
