/** The operations that only INP-Former++ needs, apart from the others so that pages without it don't ship them. */
export * from './dice.ts';
export * from './relu.ts';
export * from './sigmoid.ts';
export * from './soft-coherence.ts';
export * from './soft-mining.ts';
export * from './squared-error.ts';
export * from './transposed-convolution.ts';
