// Before a build: removes what the last one left of sources that are gone by now, or the package would carry it.
import { rmSync } from 'node:fs';

for (const folder of ['src', 'shaders']) rmSync(new URL(`../dist/${folder}`, import.meta.url), { recursive: true, force: true });
