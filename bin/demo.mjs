// `npm run demo`: sets the package up where it is not, then runs the demo.
import { setUp } from './setup.mjs';

const steps = setUp();
const { runDemo } = await import('../dist/src/node/demo.js');
process.exitCode = await runDemo(process.argv.slice(2), steps);
