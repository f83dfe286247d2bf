// Chance that can be repeated: the same numbers for the same seed.

/** Mulberry32: numbers from 0 to 1. */
export function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from `least` to `most`. */
export function between(random, least, most) {
  return least + Math.floor(random() * (most - least + 1));
}

/** One of a list. */
export function pick(random, list) {
  return list[between(random, 0, list.length - 1)];
}

/** So many bytes. */
export function bytes(random, length) {
  return Buffer.from(Array.from({ length }, () => random() * 256));
}
