// The differential test of paths, for longer: `make fuzz`. From the environment:
//   PATHS_SEED      what to start from (default: chance)
//   PATHS_REQUESTS  how many requests to send to the gate (default: 50,000)

import { randomInt } from "node:crypto";

import { ORIGINS } from "./origins.mjs";
import { startRange } from "./range.mjs";

const seed = Number(process.env.PATHS_SEED ?? randomInt(2 ** 31));
const requests = Number(process.env.PATHS_REQUESTS ?? 50_000);

const started = Date.now();
const range = await startRange();
try {
  const { tried, bypasses, summary } = await range.sample(seed, Math.ceil(requests / Object.keys(ORIGINS).length));
  range.envoy.assertNoTrap();
  console.table(Object.fromEntries(tried));
  bypasses.forEach((bypass) => console.error(bypass));
  console.log(`paths: ${summary} (${Math.round((Date.now() - started) / 1000)} s)`);
  if (bypasses.length > 0) process.exitCode = 1;
} finally {
  await range.stop();
}
