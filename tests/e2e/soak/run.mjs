// The soak in full: `make soak`. From the environment:
//   SOAK_REQUESTS  how many requests the crowd sends (default: 200,000)
//   SOAK_SEED      what to start from (default: chance)

import { randomInt } from "node:crypto";

import { soak } from "./soak.mjs";

const seed = Number(process.env.SOAK_SEED ?? randomInt(2 ** 31));
const requests = Number(process.env.SOAK_REQUESTS ?? 200_000);
const settings = { refresh: 5, timeout: 1, unknown_kid_cooldown: 2 };

const started = Date.now();
const phases = [];
const told = (figures) => {
  phases.push(figures);
  console.log(`${figures.phase}: ${figures.seconds} s`);
};
try {
  const { tally, ...figures } = await soak({ requests, seed, settings, tell: told });
  console.table(Object.fromEntries(tally));
  console.log(figures);
} finally {
  console.table(phases);
  console.log(`soak: seed ${seed}, ${requests} requests of the crowd (${Math.round((Date.now() - started) / 1000)} s)`);
}
