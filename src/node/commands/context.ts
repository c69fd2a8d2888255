/**
 * What every command has at hand: where to write, whether to answer in JSON, and when to stop. With `--json` stdout
 * carries one line, the result; all that is for people goes to stderr, as progress always does.
 */
import { InputError, InpFormerError } from '../../errors.ts';
import type { TrainProgress } from '../../train/train.ts';
import type { AdapterChoice } from '../adapter.ts';
import type { Engine } from '../../index.ts';

/** A stream to write to; process.stdout and process.stderr are two. */
export interface TextStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
}

export interface CliIo {
  readonly stdout: TextStream;
  readonly stderr: TextStream;
  /** Aborts when the user wants to stop. */
  readonly signal?: AbortSignal;
}

/** Options that every command has. */
export interface CommonOptions {
  readonly adapter: AdapterChoice;
  readonly json?: boolean;
}

export class CommandContext {
  readonly json: boolean;
  readonly signal: AbortSignal;
  private readonly io: CliIo;

  constructor(io: CliIo, json: boolean) {
    this.io = io;
    this.json = json;
    this.signal = io.signal ?? new AbortController().signal;
  }

  /** For commands that are made of others. */
  get stderr(): TextStream {
    return this.io.stderr;
  }

  /** A line for people. */
  say(text = ''): void {
    (this.json ? this.io.stderr : this.io.stdout).write(`${text}\n`);
  }

  /** A name and a value, aligned with the others. */
  field(name: string, value: string): void {
    this.say(`${name.padEnd(12)} ${value}`);
  }

  /** Something that the user should know but that stops nothing. */
  warn(text: string): void {
    this.io.stderr.write(`Warning: ${text}\n`);
  }

  /** The command's answer for programs: one line, and the last one. */
  result(value: object): void {
    if (this.json) this.io.stdout.write(`${JSON.stringify(value)}\n`);
  }

  progress(): Progress {
    return new Progress(this.io.stderr);
  }

  /** Engine creation, told to the user; a software adapter with a warning, because it is 100 times slower. */
  async engine(choice: AdapterChoice): Promise<Engine> {
    const { createNodeEngine } = await import('../engine.ts');
    const engine = await createNodeEngine({ adapter: choice });
    this.field('Adapter', engine.adapter.name);
    if (engine.adapter.isSoftware) {
      this.warn('this adapter runs on the CPU: right, but around 100 times slower than a GPU. `inp-former info` says what to expect.');
    }
    return engine;
  }
}

/** A bar on a terminal, a line every ten seconds elsewhere. Also keeps how long each phase took. */
export class Progress {
  /** Seconds by phase, in the order in which the phases came. */
  readonly seconds: Record<string, number> = {};
  private readonly stream: TextStream;
  private bar: { update(value: number, payload: object): void; stop(): void } | undefined;
  private phase: string | undefined;
  private phaseStart = 0;
  private lastLine = 0;

  constructor(stream: TextStream) {
    this.stream = stream;
  }

  /** Begins a phase and ends the one before. */
  async begin(phase: string, total: number): Promise<void> {
    this.end();
    this.phase = phase;
    this.phaseStart = this.lastLine = performance.now();
    if (!this.stream.isTTY) return;
    // Without the package there are lines instead of bars.
    const bars = await import('cli-progress').catch(() => undefined);
    if (!bars || this.phase !== phase) return;
    const bar = new bars.default.SingleBar({
      format: `${phase.padEnd(12)} {bar} {value}/{total}  {detail}`,
      stream: this.stream as NodeJS.WritableStream,
      barsize: 28, clearOnComplete: true, gracefulExit: false,
    }, bars.default.Presets.shades_classic);
    bar.start(total, 0, { detail: '' });
    this.bar = bar;
  }

  update(done: number, total: number, detail: string): void {
    this.bar?.update(done, { detail });
    const now = performance.now();
    if (this.bar || now - this.lastLine < 10_000) return;
    this.lastLine = now;
    this.stream.write(`${this.phase} ${done}/${total}  ${detail}\n`);
  }

  /** For `trainInspector`'s `onProgress`. */
  onTraining = (progress: TrainProgress): void => {
    const { phase, done, total, loss, imagesPerSecond, secondsLeft } = progress;
    if (phase !== this.phase) void this.begin(phase, total);
    const parts = [
      loss === undefined ? undefined : `loss ${loss.toFixed(4)}`,
      imagesPerSecond > 0 ? `${imagesPerSecond.toPrecision(3)} images/s` : undefined,
      Number.isFinite(secondsLeft) && secondsLeft > 0 ? `${duration(secondsLeft)} left` : undefined,
    ];
    this.update(done, total, parts.filter((part) => part !== undefined).join(', '));
  };

  /** Ends the running phase. */
  end(): void {
    this.bar?.stop();
    this.bar = undefined;
    if (this.phase !== undefined) this.seconds[this.phase] = (this.seconds[this.phase] ?? 0) + (performance.now() - this.phaseStart) / 1000;
    this.phase = undefined;
  }
}

/** 8.3 s, 2 min 05 s, 1 h 02 min. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}

/** 512 B, 7.4 MB, 1.3 GB: powers of 1000. */
export function byteSize(bytes: number): string {
  return withPrefix(bytes, 'B');
}

/** 950, 12.3 M, 107 G, with the unit behind. */
export function withPrefix(value: number, unit: string): string {
  let exponent = 0;
  while (value >= 999.5 && exponent < 5) {
    value /= 1000;
    exponent++;
  }
  return `${exponent === 0 ? Math.round(value) : value.toPrecision(3)} ${['', 'k', 'M', 'G', 'T', 'P'][exponent]}${unit}`;
}

/** Rows as aligned lines; columns of numbers to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[], rightAligned: readonly number[] = []): string {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  return [header, ...rows]
    .map((row) => row.map((cell, column) => (rightAligned.includes(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!))).join('  ').trimEnd())
    .join('\n');
}

/** An error as what programs get. */
export function errorRecord(error: unknown): { error: { code: string; message: string; file?: string } } {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof InpFormerError ? error.code : 'unexpected';
  const file = error instanceof InputError ? error.file : undefined;
  return { error: { code, message, ...(file !== undefined && { file }) } };
}
