/** A place where tasks run, seen from the program that gives them out: a page of a browser, or another Node process. */
import type { LeftOut, Measurement } from '../measurement.ts';
import type { Task, TaskResult } from '../tasks.ts';

/** What a task tells while it runs. */
export type BenchEvent =
  | { readonly kind: 'log'; readonly text: string }
  | { readonly kind: 'measurement'; readonly measurement: Measurement }
  | { readonly kind: 'leftOut'; readonly leftOut: LeftOut };

export interface Session {
  /** What runs the tasks, with its version: `Chrome 147…`, `Node 20…`. */
  readonly version: string;
  run(task: Task): Promise<TaskResult>;
  close(): Promise<void>;
}

export interface SessionOptions {
  /** The project's folder. */
  readonly root: string;
  readonly adapter: 'auto' | 'gpu' | 'swiftshader' | 'lavapipe';
  /** Folder of NAME.safetensors. */
  readonly encoderFolder: string | undefined;
  onEvent(event: BenchEvent): void;
}

/** The file that a task asks for, on disk. Nothing but the package's weights and the encoders' folder can be asked for. */
export function filePath({ root, encoderFolder }: Pick<SessionOptions, 'root' | 'encoderFolder'>, path: string): string | undefined {
  if (/^weights\/[\w/-]+\.safetensors$/.test(path)) return `${root}/${path}`;
  const encoder = /^encoders\/([\w-]+\.safetensors)$/.exec(path)?.[1];
  return encoder !== undefined && encoderFolder !== undefined ? `${encoderFolder}/${encoder}` : undefined;
}
