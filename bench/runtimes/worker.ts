/**
 * What runs inside a Node process of its own: the tasks, on Dawn, with the adapter that the first argument names. Of the
 * peers only onnxruntime-web's wasm back end works in Node; the others need a browser.
 */
import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-web';
import { createGpu, type AdapterChoice } from '../../src/node/adapter.ts';
import { errorText } from '../measurement.ts';
import { onnxruntimePeer } from '../peers/onnxruntime.ts';
import type { Platform } from '../suites/bench.ts';
import { runTask, type Task } from '../tasks.ts';
import { filePath, type BenchEvent } from './session.ts';

const { adapter, root, encoderFolder } = JSON.parse(process.argv[2]!) as { adapter: AdapterChoice; root: string; encoderFolder?: string };
const send = (event: BenchEvent): void => void process.send!({ event });

async function makePlatform(): Promise<Platform> {
  return {
    runtime: 'node',
    gpu: await createGpu(adapter),
    async readFile(path) {
      const file = filePath({ root, encoderFolder }, path);
      return file === undefined ? undefined : readFile(file).then((bytes) => new Uint8Array(bytes), () => undefined);
    },
    log: (text) => send({ kind: 'log', text }),
    report: (measurement) => send({ kind: 'measurement', measurement }),
    leaveOut: (leftOut) => send({ kind: 'leftOut', leftOut }),
    peers: [onnxruntimePeer(ort, 'wasm')],
  };
}

let platform: Promise<Platform> | undefined;
process.on('message', async (task: Task) => {
  try {
    platform ??= makePlatform();
    process.send!({ result: await runTask(task, await platform) });
  } catch (error) {
    process.send!({ error: errorText(error) });
  }
});
