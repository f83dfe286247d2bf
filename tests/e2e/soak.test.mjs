// A soak of a few seconds: a crowd that sends anything at all, and people who keep coming back, while the provider fails, keys
// and configurations change and a VM crashes. `make soak` runs it for longer.

import { test } from "node:test";

import { soak } from "./soak/soak.mjs";

const SEED = Number(process.env.SOAK_SEED ?? 2026);

test(`people get their pages whatever others do, seed ${SEED}`, async (t) => {
  const settings = { refresh: 1, timeout: 0.3, unknown_kid_cooldown: 1 };
  const tell = ({ phase, ...figures }) => t.diagnostic(`${phase}: ${JSON.stringify(figures)}`);
  await soak({ requests: 3_000, seed: SEED, faults: 3, settings, tell });
});
