/**
 * Every error this package throws on purpose is one of these. The message says what was found, what was
 * expected and what to do; `code` is stable, so that programs can branch on it without reading English.
 */
export class InpFormerError extends Error {
  /** Stable machine-readable identifier, e.g. `'device-lost'`. */
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A wrong shape, option or value passed by the caller: a bug in the calling code, not in its data. */
export class UsageError extends InpFormerError {
  constructor(message: string) {
    super('usage', message);
  }
}

/** A file or image that can't be used: not an image, truncated, empty folder, damaged safetensors, NaN pixels. */
export class InputError extends InpFormerError {
  /** The file that was read, where one was. */
  readonly file: string | undefined;

  constructor(message: string, options?: { file?: string; cause?: unknown; code?: string }) {
    super(options?.code ?? 'input', message, options);
    this.file = options?.file;
  }
}

/** A model file opened with another encoder than the one that it was trained on. */
export class EncoderMismatchError extends InpFormerError {
  constructor(message: string) {
    super('encoder-mismatch', message);
  }
}

/** An encoder that is neither given, embedded, cached nor downloadable, or whose bytes have the wrong hash. */
export class WeightsError extends InpFormerError {
  constructor(code: 'weights-not-found' | 'weights-hash' | 'weights-download', message: string, options?: { cause?: unknown }) {
    super(code, message, options);
  }
}

/** No adapter, or one that can't do what is asked; the message says what to install or to lower. */
export class AdapterError extends InpFormerError {
  constructor(code: 'no-adapter' | 'adapter-too-small', message: string, options?: { cause?: unknown }) {
    super(code, message, options);
  }
}

/** The GPU went away. `reason` is WebGPU's: 'unknown' can be recovered from with a new adapter, 'destroyed' was asked for. */
export class DeviceLostError extends InpFormerError {
  readonly reason: string;

  constructor(reason: string, message: string) {
    super('device-lost', message);
    this.reason = reason;
  }
}

/** An allocation that was refused before it was tried, with the figures, or that the device refused. */
export class AllocationError extends InpFormerError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('allocation', message, options);
  }
}

/** A kernel that does not compile or validate: names the kernel, the file and the line of its source. */
export class KernelError extends InpFormerError {
  readonly kernel: string;

  constructor(kernel: string, message: string, options?: { cause?: unknown }) {
    super('kernel', message, options);
    this.kernel = kernel;
  }
}

/** A readback that failed; it never yields zeros in place of the values. */
export class ReadbackError extends InpFormerError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('readback', message, options);
  }
}

/** NaN or diverging loss in training. */
export class TrainingDivergedError extends InpFormerError {
  /** The step (from 0) whose loss was bad. */
  readonly step: number;
  readonly loss: number;

  constructor(step: number, loss: number, message: string) {
    super('diverged', message);
    this.step = step;
    this.loss = loss;
  }
}

/** Stopped by the caller's AbortSignal or Ctrl-C. */
export class AbortedError extends InpFormerError {
  constructor(message: string) {
    super('aborted', message);
  }
}
