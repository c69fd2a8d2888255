/** All operations: a builder function each, and the operation itself for tables and tests. */
export * from './add.ts';
export * from './gelu.ts';
export * from './layer-scale.ts';
export * from './reshape.ts';
export * from './scale.ts';
