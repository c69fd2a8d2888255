/** Mathematics that several CPU references share, in f64. */

/** erf by its Maclaurin series where |x| < 3, by the continued fraction of erfc beyond; relative error below 1e-14. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 3) {
    let term = a;
    let sum = a;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= -(a * a) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

/** x/2 (1 + erf(x / sqrt 2)) */
export function geluValue(x: number): number {
  return (x / 2) * (1 + erf(x / Math.SQRT2));
}

/** d gelu / dx = Phi(x) + x phi(x) */
export function geluDerivative(x: number): number {
  return 0.5 * (1 + erf(x / Math.SQRT2)) + (x * Math.exp(-x * x / 2)) / Math.sqrt(2 * Math.PI);
}
