/** The worker's voice. */
import type { EngineEvent } from '../protocol.ts';

export function tell(event: EngineEvent, transfer: Transferable[] = []): void {
  globalThis.postMessage({ event }, { transfer });
}
