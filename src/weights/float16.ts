/**
 * 16-bit floats as bit patterns, to and from float32. A half float is (-1)^s * 2^(e-15) * (1 + m/1024), subnormal
 * m * 2^-24 for e = 0; a bfloat16 is the upper half of a float32. JavaScript has typed arrays for neither in every
 * supported runtime, so they travel as Uint16Array.
 */

let widened: Uint32Array | undefined;

/** The float32 bit pattern of every half float: 65536 entries answer faster than arithmetic for millions of weights. */
function widenTable(): Uint32Array {
  if (widened) return widened;
  const table = new Uint32Array(65536);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  for (let half = 0; half < 65536; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 31;
    const mantissa = half & 1023;
    if (exponent === 31) {
      table[half] = (sign | 0x7f800000 | (mantissa << 13)) >>> 0;
    } else {
      float[0] = exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25);
      table[half] = (sign | bits[0]!) >>> 0;
    }
  }
  return (widened = table);
}

/** Half-float bit patterns to float32, exactly (subnormals, infinities and NaN payloads included). */
export function float16ToFloat32(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const table = widenTable();
  const out = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) out[i] = table[halves[i]!]!;
  return new Float32Array(out.buffer);
}

/** bfloat16 bit patterns to float32, exactly. */
export function bfloat16ToFloat32(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) out[i] = halves[i]! << 16;
  return new Float32Array(out.buffer);
}

/** float32 to half-float bit patterns, rounded to nearest, ties to even; too large becomes infinity, NaN stays NaN. */
export function float32ToFloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const bits = source[i]!;
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = bits & 0x7fffffff;
    let half: number;
    if (magnitude > 0x7f800000) {
      half = 0x7e00 | ((magnitude >>> 13) & 1023);
    } else if (magnitude >= 0x47800000) {
      half = 0x7c00; // 65536 and above; 65520 to 65535 round up to infinity below, through the exponent's carry
    } else if (magnitude >= 0x38800000) {
      const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
      half = (rounded >>> 13) - (112 << 10);
    } else {
      // Subnormal: the value in units of 2^-24, which float64 holds exactly.
      const units = Math.abs(values[i]!) * 2 ** 24;
      const floor = Math.floor(units);
      const rest = units - floor;
      half = rest > 0.5 || (rest === 0.5 && (floor & 1) === 1) ? floor + 1 : floor;
    }
    out[i] = sign | half;
  }
  return out;
}
