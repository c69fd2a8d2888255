/** Sessions in Node: a process each, so that a driver's crash ends a session and not the benchmark. */
import { fork } from 'node:child_process';
import { join } from 'node:path';
import type { Task, TaskResult } from '../tasks.ts';
import type { BenchEvent, Session, SessionOptions } from './session.ts';

type Message = { event: BenchEvent } | { error: string } | { result: TaskResult };

export async function openNodeSession({ root, adapter, encoderFolder, onEvent }: SessionOptions): Promise<Session> {
  const child = fork(join(root, 'bench/dist/worker.mjs'), [JSON.stringify({ adapter, root, encoderFolder })], { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const ended = new Promise<never>((_, reject) => {
    child.once('exit', (code, signal) => reject(new Error(`The Node process of the benchmark ended with ${signal ?? code}.`)));
  });
  // A session that is closed ends as well.
  ended.catch(() => undefined);
  return {
    version: `Node ${process.versions.node}`,
    run(task: Task) {
      const answered = new Promise<TaskResult>((resolve, reject) => {
        const listen = (message: Message): void => {
          if ('event' in message) return onEvent(message.event);
          child.off('message', listen as (message: unknown) => void);
          if ('error' in message) reject(new Error(message.error));
          else resolve(message.result);
          return undefined;
        };
        child.on('message', listen as (message: unknown) => void);
        child.send(task);
      });
      return Promise.race([answered, ended]);
    },
    async close() {
      child.kill('SIGKILL');
      await ended.catch(() => undefined);
    },
  };
}
