/** What runs inside the page: the tasks, on `navigator.gpu`, against every peer. */
import * as ortWasm from 'onnxruntime-web/wasm';
import * as ortWebgpu from 'onnxruntime-web/webgpu';
import { AdapterError } from '../../src/errors.ts';
import { jaxPeer } from '../peers/jax.ts';
import { onnxruntimePeer } from '../peers/onnxruntime.ts';
import { tfjsPeer } from '../peers/tfjs.ts';
import type { Platform } from '../suites/bench.ts';
import { runTask, type Task, type TaskResult } from '../tasks.ts';
import type { BenchEvent } from './session.ts';

interface Globals {
  benchEvent(event: BenchEvent): Promise<void>;
  benchTask(task: Task): Promise<TaskResult>;
}
const globals = globalThis as unknown as Globals;

const platform: Platform = {
  runtime: 'chrome',
  get gpu() {
    if (!navigator.gpu) throw new AdapterError('no-adapter', 'This browser has no WebGPU.');
    return navigator.gpu;
  },
  async readFile(path) {
    const response = await fetch(`/files/${path}`);
    return response.ok ? new Uint8Array(await response.arrayBuffer()) : undefined;
  },
  log: (text) => void globals.benchEvent({ kind: 'log', text }),
  report: (measurement) => void globals.benchEvent({ kind: 'measurement', measurement }),
  leaveOut: (leftOut) => void globals.benchEvent({ kind: 'leftOut', leftOut }),
  peers: [jaxPeer, tfjsPeer, onnxruntimePeer(ortWebgpu, 'WebGPU', '/onnxruntime/'), onnxruntimePeer(ortWasm, 'wasm', '/onnxruntime/')],
};

globals.benchTask = (task) => runTask(task, platform);
