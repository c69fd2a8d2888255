/** The page's end of the line to the worker: calls become promises, events go to those who listen. */
import type { EngineAnswer, EngineApi, EngineEvent, ErrorRecord } from './protocol.ts';

export class EngineError extends Error {
  readonly code: string;

  constructor({ code, message }: ErrorRecord) {
    super(message);
    this.code = code;
  }
}

type Answer<Name extends keyof EngineApi> = Promise<ReturnType<EngineApi[Name]>>;

class EngineClient {
  private readonly worker = new Worker(new URL('./worker/main.ts', import.meta.url), { type: 'module', name: 'engine' });
  private readonly waiting = new Map<number, { resolve(value: unknown): void; reject(error: EngineError): void }>();
  private readonly listeners = new Set<(event: EngineEvent) => void>();
  private calls = 0;

  constructor() {
    this.worker.addEventListener('message', ({ data }: MessageEvent<EngineAnswer>) => {
      if ('event' in data) {
        for (const listener of this.listeners) listener(data.event);
        return;
      }
      const call = this.waiting.get(data.call);
      this.waiting.delete(data.call);
      if ('error' in data) call?.reject(new EngineError(data.error));
      else call?.resolve(data.result);
    });
    this.worker.addEventListener('error', (event) => {
      const error = new EngineError({ code: 'worker', message: `The page's worker failed: ${event.message || 'it could not be loaded'}. Reload the page; what was saved is kept.` });
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    });
  }

  call<Name extends keyof EngineApi>(name: Name, ...[argument, transfer = []]: Parameters<EngineApi[Name]> extends [] ? [] : [argument: Parameters<EngineApi[Name]>[0], transfer?: Transferable[]]): Answer<Name> {
    const call = ++this.calls;
    return new Promise<unknown>((resolve, reject) => {
      this.waiting.set(call, { resolve, reject });
      this.worker.postMessage({ call, name, argument }, transfer as Transferable[]);
    }) as Answer<Name>;
  }

  listen(listener: (event: EngineEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

export const engine = new EngineClient();
