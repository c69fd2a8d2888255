/** An engine in Node: Dawn with the adapter of one's choice. */
import { Engine } from '../engine.ts';
import { createGpu, type AdapterChoice } from './adapter.ts';
import { tuningFile } from './tuning-file.ts';

/** @throws AdapterError: what was found and what to install */
export async function createNodeEngine({ adapter = 'auto' }: { adapter?: AdapterChoice } = {}): Promise<Engine> {
  return Engine.create({ gpu: await createGpu(adapter), tuning: tuningFile(adapter) });
}
