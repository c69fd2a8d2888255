/** The operations that only some settings need (few-shot training, the memory), apart from the others so that pages without them don't ship them. */
export * from './warp-image.ts';
export * from './nearest-neighbour.ts';
