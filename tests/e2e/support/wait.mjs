// Waiting for what gives no event of its own (a counter in another process): asked again and again, until a deadline.

import { setTimeout as pause } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

/**
 * What `ask` gives, once that is truthy. An error that it throws counts as "not yet" and is told when time is up.
 *
 * @template T
 * @param {number} milliseconds
 * @param {string} what  for the message: "the app is ready"
 * @param {() => T | Promise<T>} ask
 * @returns {Promise<T>}
 */
export async function eventually(milliseconds, what, ask) {
  const deadline = Date.now() + milliseconds;
  for (;;) {
    let cause;
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      cause = error;
    }
    if (Date.now() > deadline) throw new Error(`not within ${milliseconds} ms: ${what}`, { cause });
    await pause(15);
  }
}

/**
 * Counters that a module tells: within 100 ms where it counts a lot, so that they are all there once they stand still for longer.
 *
 * @template T
 * @param {() => Promise<T>} read
 * @returns {Promise<T>}
 */
export async function standingStill(read) {
  let [last, since] = [await read(), Date.now()];
  return eventually(10_000, "counters stand still", async () => {
    const now = await read();
    if (!isDeepStrictEqual(now, last)) [last, since] = [now, Date.now()];
    return Date.now() - since > 150 && now;
  });
}

/** A promise with its own way to be fulfilled. */
export function deferred() {
  let resolve;
  const promise = new Promise((fulfil) => {
    resolve = fulfil;
  });
  return { promise, resolve };
}
