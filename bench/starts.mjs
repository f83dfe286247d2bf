// What a start and an idle worker cost.

import { request } from "../tests/e2e/support/http.mjs";
import { residentMemory, vmMemories } from "../tests/e2e/support/memory.mjs";
import { eventually } from "../tests/e2e/support/wait.mjs";
import { OPEN, gate, gateConfig, noop } from "./arrangements.mjs";
import { launchEnvoy } from "./envoy.mjs";
import { cpuSeconds, freePort } from "./machine.mjs";

const MANY = 9;

const FILTERS = {
  nothing: () => [],
  noop: () => [noop()],
  gate: () => [gate("rest", gateConfig({ rules: 10 }))],
};

/** Milliseconds, on the clock and of CPU time, from Envoy's start to its first answer through the filter; several times, in turn. */
export async function measureStarts(times) {
  const results = { noop: [], gate: [] };
  for (let time = 0; time < times; time += 1) {
    for (const name of time % 2 === 0 ? ["noop", "gate"] : ["gate", "noop"]) results[name].push(await firstAnswer(FILTERS[name]()));
  }
  return results;
}

/**
 * What a worker's VM takes at rest, in bytes: its linear memory, and all that Envoy grows by with each further worker, less
 * what a worker takes without a filter.
 */
export async function measureRest() {
  const grown = {};
  let linear;
  for (const [name, filters] of Object.entries(FILTERS)) {
    const [one, many] = [await atRest(filters(), 1), await atRest(filters(), MANY)];
    grown[name] = (many.resident - one.resident) / (MANY - 1);
    if (name === "gate") linear = Math.max(...one.linear);
  }
  return { linear, gate: grown.gate - grown.nothing, noop: grown.noop - grown.nothing };
}

async function firstAnswer(filters) {
  const port = await freePort();
  const begun = performance.now();
  const envoy = await launchEnvoy({ only: filters }, { port });
  try {
    for (;;) {
      try {
        await request(port, { path: OPEN });
        return { wall: performance.now() - begun, cpu: 1000 * cpuSeconds(envoy.pid) };
      } catch (error) {
        if (!envoy.alive) throw new Error(`Envoy has ended:\n${envoy.log}`, { cause: error });
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  } finally {
    await envoy.stop();
  }
}

async function atRest(filters, workers) {
  const envoy = await launchEnvoy({ only: filters }, { workers });
  try {
    await envoy.ready();
    // V8 is still compiling when Envoy serves already: what it holds meanwhile is not what it keeps.
    let [before, same] = [0, 0];
    await eventually(30_000, "Envoy's memory is at rest", async () => {
      const now = await residentMemory(envoy.pid);
      same = now === before ? same + 1 : 0;
      before = now;
      return same > 30;
    });
    return { resident: before, linear: [...(await vmMemories(envoy.pid)).values()] };
  } finally {
    await envoy.stop();
  }
}
