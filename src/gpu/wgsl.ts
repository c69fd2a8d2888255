/**
 * WGSL text with typed constants. wgsl-preprocessor supplies `#if/#elif/#else/#endif` inside a template literal;
 * this wrapper closes its edges: an `undefined` or a fractional number can't slip in (floats go through `f32()`),
 * booleans appear only as conditions, and every emitted line remembers the template line that it came from, so
 * that a compiler message can be shown on the line as it was written although dropped branches shift the numbers.
 */
import { wgsl as preprocess } from 'wgsl-preprocessor/wgsl-preprocessor.js';
import { UsageError } from '../errors.ts';

/** Expanded WGSL and, for each of its lines, the line of the template (from 1) that produced it. */
export interface WgslText {
  readonly code: string;
  readonly lines: readonly number[];
}

/** A kernel ready to be compiled: `file` and `label` are what error messages call it. */
export interface KernelSource extends WgslText {
  readonly file: string;
  readonly label: string;
}

type WgslValue = string | number | boolean | WgslText;

const marker = /^\/\*@(\d+)\*\//;

/** Template tag: like wgsl-preprocessor's, with checked values and a line map. Fragments may be nested. */
export function wgsl(strings: TemplateStringsArray, ...values: WgslValue[]): WgslText {
  let line = 1;
  const marked = strings.map((piece) => piece.replace(/\n/g, () => `\n/*@${++line}*/`));
  const checked = values.map((value, i) => {
    const isCondition = /#(if|elif)\s*$/.test(strings[i]!);
    if (isCondition) {
      if (typeof value !== 'boolean') throw new UsageError(`WGSL condition ${i} is ${typeof value}, expected a boolean.`);
      return value;
    }
    return emit(value, i);
  });
  const expanded = (preprocess as (s: readonly string[], ...v: unknown[]) => string)(marked, ...checked);
  const lines: number[] = [];
  let current = 1;
  const code = expanded
    .split('\n')
    .map((text) => {
      const match = marker.exec(text);
      if (match) current = Number(match[1]);
      lines.push(current);
      return text.replace(/\/\*@\d+\*\//g, '').replace(/\s+$/, '');
    });
  return withoutBlankLines(code, lines);
}

function emit(value: WgslValue | undefined, index: number): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value);
  if (typeof value === 'object' && typeof value?.code === 'string') return value.code;
  throw new UsageError(
    `WGSL value ${index} is ${String(value)}: expected an integer, a string, or f32(x) for a floating-point constant.`,
  );
}

function withoutBlankLines(code: string[], lines: number[]): WgslText {
  const kept = code.map((text, i) => [text, lines[i]!] as const).filter(([text]) => text !== '');
  return { code: kept.map(([text]) => text).join('\n'), lines: kept.map(([, line]) => line) };
}

/** Names a finished kernel. */
export function kernel(file: string, label: string, text: WgslText): KernelSource {
  return { file, label, code: text.code, lines: text.lines };
}

/** A floating-point literal that keeps its type (`1` becomes `1.0f`) and rounds once, to f32. */
export function f32(value: number): string {
  const rounded = Math.fround(value);
  if (!Number.isFinite(rounded)) throw new UsageError(`WGSL has no f32 literal for ${value}.`);
  const text = String(rounded);
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
}

/** An unsigned literal. */
export function u32(value: number): string {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) throw new UsageError(`${value} is not a u32.`);
  return `${value}u`;
}

/** Declares module-scope constants from literals made by {@link f32} and {@link u32}. */
export function constants(values: Record<string, string | number>): string {
  return Object.entries(values)
    .map(([name, value]) => {
      const literal = typeof value === 'number' ? u32(value) : value;
      return `const ${name} = ${literal};`;
    })
    .join('\n');
}
