// The template tag: what it expands, what it refuses, and that every emitted line remembers the template line it came
// from, whatever was dropped before it.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { constants, f32, kernel, u32, wgsl } from '../../src/gpu/wgsl.ts';
import { sourceMessage } from '../../src/gpu/pipelines.ts';

describe('wgsl', () => {
  const branches = (first: boolean, second: boolean) => wgsl`
#if ${first}
const a = 1;
#elif ${second}
const a = 2;
#else
const a = 3;
#endif
const b = ${4};
`;

  it.each([[true, false, 1, 3], [true, true, 1, 3], [false, true, 2, 5], [false, false, 3, 7]])('takes the branch of (%s, %s)', (first, second, a, line) => {
    const { code, lines } = branches(first, second);
    expect(code).toBe(`const a = ${a};\nconst b = 4;`);
    expect(lines).toEqual([line, 9]);
  });

  it('nests branches, and branches on one line', () => {
    const text = (outer: boolean, inner: boolean) => wgsl`start #if ${outer} A
#if ${inner} B
#else C
#endif D
#endif
end`;
    expect(text(true, true).code.replace(/\s+/g, ' ')).toBe('start A B D end');
    expect(text(true, false).code.replace(/\s+/g, ' ')).toBe('start A C D end');
    expect(text(false, true).code.replace(/\s+/g, ' ')).toBe('start end');
    expect(text(false, true).lines).toEqual([1, 6]);
  });

  it('takes whole numbers, strings and fragments, in which every line counts as the line they stand on', () => {
    const fragment = wgsl`
fn one() -> u32 { return ${1}u; }
fn two() -> u32 { return ${u32(2)}; }
`;
    const { code, lines } = wgsl`// first
${fragment}
const n = ${-7}; ${'// text'}
`;
    expect(code).toBe('// first\nfn one() -> u32 { return 1u; }\nfn two() -> u32 { return 2u; }\nconst n = -7; // text');
    expect(lines).toEqual([1, 2, 2, 3]);
  });

  it.each([undefined, null, NaN, Infinity, 0.5, 2 ** 60, true, {}])('refuses the value %s', (value) => {
    expect(() => wgsl`const x = ${value as number};`).toThrow(UsageError);
  });

  it.each([1, 0, 'true', undefined])('refuses the condition %s', (condition) => {
    expect(() => wgsl`
#if ${condition as unknown as boolean}
#endif`).toThrow(UsageError);
  });

  it('numbers the lines right for any choice of branches', () => {
    fc.assert(fc.property(fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }), fc.integer({ min: 0, max: 4 }), ([a, b, c], extra) => {
      const { code, lines } = wgsl`line 1
#if ${a!}
line 3 ${'\nmore'.repeat(extra)}
#if ${b!}
line 5
#else
line 7
#endif
#endif
line 10
#if ${c!}
line 12
#endif
line 14`;
      code.split('\n').forEach((text, i) => {
        if (text.startsWith('line')) expect(lines[i]).toBe(Number(text.slice(5)));
        else expect(lines[i]).toBe(3);
      });
      expect(lines).toHaveLength(code.split('\n').length);
    }));
  });
});

describe('literals', () => {
  it('keep their type', () => {
    expect([f32(1), f32(-2), f32(0.5), f32(1e-10), f32(1e30)]).toEqual(['1.0f', '-2.0f', '0.5f', expect.stringMatching(/e-\d+f$/), expect.stringMatching(/e\+?\d+f$/)]);
    expect([u32(0), u32(4294967295)]).toEqual(['0u', '4294967295u']);
  });

  it('round once, to f32: the literal is an f32 and reads back as the nearest one', () => {
    fc.assert(fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), fc.double({ min: -1e-8, max: 1e-8, noNaN: true }), (x, tweak) => {
      const value = x * (1 + tweak);
      fc.pre(Number.isFinite(Math.fround(value)));
      const literal = Number(f32(value).slice(0, -1));
      expect(literal).toBe(Math.fround(value) + 0); // -0 becomes 0
    }));
  });

  it('refuse what has no literal', () => {
    for (const value of [NaN, Infinity, -Infinity, 1e39]) expect(() => f32(value)).toThrow(UsageError);
    for (const value of [-1, 0.5, 2 ** 32, NaN]) expect(() => u32(value)).toThrow(UsageError);
  });

  it('become module constants', () => {
    expect(constants({ count: 3, scale: f32(2) })).toBe('const count = 3u;\nconst scale = 2.0f;');
  });
});

it('sourceMessage tells kernel, file, template line and the text', () => {
  const source = kernel('demo.wgsl.ts', 'demo 3x3', wgsl`
#if ${false}
dropped
#endif
let wrong = ${1};`);
  expect(source.code).toBe('let wrong = 1;');
  expect(sourceMessage(source, 1, 'expected ;')).toBe('Kernel demo 3x3, shaders/demo.wgsl.ts, template line 5: expected ;\n    let wrong = 1;');
});
