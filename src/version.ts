/** This package's version, as package.json states it (a test holds the two equal): the core can't read files. */
export const version = '0.1.0';
