/**
 * What goes to the GPU, counted where all of it passes: on the prototypes that every device of a realm shares, so a peer's
 * calls count as well as this engine's.
 */
export interface Traffic {
  dispatches: number;
  submits: number;
  /** CPU time from making a command encoder to finishing it, time in `writeBuffer` aside, seconds. */
  encodeSeconds: number;
}

type Methods = Record<string, (...args: unknown[]) => unknown>;

let watched: Traffic | undefined;
let setCounting: (counts: boolean) => void = () => undefined;

/** Runs with nothing around the dispatches, hundreds of calls inside the time of encoding; they are not counted. */
export async function withoutCounting<T>(run: () => Promise<T>): Promise<T> {
  setCounting(false);
  try {
    return await run();
  } finally {
    setCounting(true);
  }
}

/** Starts counting; there is one count a realm. @param device any device of it */
export function watchTraffic(device: GPUDevice): Traffic {
  if (watched) return watched;
  const traffic: Traffic = { dispatches: 0, submits: 0, encodeSeconds: 0 };
  watched = traffic;
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.end();
  encoder.finish();

  let writing = 0;
  const begun = new WeakMap<object, { at: number; writing: number }>();
  countDispatches(pass, traffic);
  around(pass, 'dispatchWorkgroupsIndirect', (_, call) => { traffic.dispatches++; return call(); });
  around(device.queue, 'submit', (_, call) => { traffic.submits++; return call(); });
  around(device.queue, 'writeBuffer', (_, call) => {
    const started = performance.now();
    const result = call();
    writing += performance.now() - started;
    return result;
  });
  around(device, 'createCommandEncoder', (_, call) => {
    const at = performance.now();
    const made = call() as object;
    begun.set(made, { at, writing });
    return made;
  });
  around(encoder, 'finish', (self, call) => {
    const result = call();
    const start = begun.get(self);
    if (start) traffic.encodeSeconds += (performance.now() - start.at - (writing - start.writing)) / 1000;
    return result;
  });
  return traffic;
}

function countDispatches(pass: GPUComputePassEncoder, traffic: Traffic): void {
  const prototype = Object.getPrototypeOf(pass) as Pick<GPUComputePassEncoder, 'dispatchWorkgroups'>;
  const original = prototype.dispatchWorkgroups;
  const counted = function (this: GPUComputePassEncoder, x: number, y?: number, z?: number) {
    traffic.dispatches++;
    return original.call(this, x, y, z);
  };
  setCounting = (counts) => { prototype.dispatchWorkgroups = counts ? counted : original; };
  setCounting(true);
}

/** Puts `wrapper` around a method of all objects like `instance`. */
function around(instance: object, name: string, wrapper: (self: object, call: () => unknown) => unknown): void {
  const prototype = Object.getPrototypeOf(instance) as Methods;
  const original = prototype[name]!;
  prototype[name] = function wrapped(this: object, ...args: unknown[]) {
    return wrapper(this, () => original.apply(this, args));
  };
}
