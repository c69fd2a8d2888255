/** The text of epilogues: pointwise steps on the values v0 that a kernel is about to store, giving v1, v2, .. */
import type { Epilogue } from '../src/graph/operation.ts';

/** The epilogues that read a second value: each has a binding, `operand0`, `operand1`, .. in this order. */
export function operandsOf(epilogues: readonly Epilogue[]): Epilogue[] {
  return epilogues.filter((e) => e.operand !== 'none');
}

/** Declarations of the operands' bindings from number `first` on. */
export function declareOperands(epilogues: readonly Epilogue[], first: number, type: string): string {
  return operandsOf(epilogues).map((_, n) => `@group(0) @binding(${first + n}) var<storage, read> operand${n}: array<${type}>;`).join('\n');
}

/** The WGSL functions that they call, each once. */
export function functionsOf(epilogues: readonly Epilogue[]): string {
  return [...new Set(epilogues.map((e) => e.functions ?? ''))].join('\n');
}

/** Statements that take `v0` through the epilogues; `index` gives the index of an operand. `result` is the last value's name. */
export function finish(epilogues: readonly Epilogue[], vector: boolean, index: (operand: 'column' | 'element') => string): { text: string; result: string } {
  let operand = 0;
  const text = epilogues.map((e, i) => `let v${i + 1} = ${e.expression(`v${i}`, e.operand === 'none' ? '' : `operand${operand++}[${index(e.operand)}]`, vector)};`).join(' ');
  return { text, result: `v${epilogues.length}` };
}
