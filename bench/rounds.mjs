// Requests per second of every situation, in turn, several rounds.

import assert from "node:assert/strict";

import { LISTENERS, SITUATIONS, browserHeaders } from "./arrangements.mjs";
import { paced, saturate } from "./load.mjs";
import { cpuSeconds } from "./machine.mjs";
import { mint, tokenFile } from "./tokens.mjs";

// Far more than any cache here keeps, so that a token is forgotten before it comes round again. Signatures that the module
// checks itself are slow, so fewer do.
const NEW_TOKENS = { RS256: 60_000, ES256: 60_000, PS256: 20_000, EdDSA: 40_000 };

const UNDER_WAY = 100;

/** Signs what the rounds need, where it is not there from an earlier run. */
export async function prepareTokens() {
  const files = {};
  for (const [alg, count] of Object.entries(NEW_TOKENS)) files[alg] = { ...await tokenFile(alg, count), next: {} };
  return files;
}

/**
 * Measures each situation once a round, in an order that begins elsewhere each time: by situation, a list of
 * `{ rate, busy, cpu, checked }`: requests per second, Envoy's share of its core, its microseconds of CPU time for a request,
 * and the signatures that were checked for one.
 */
export async function measureRounds(envoy, files, { rounds, seconds, tell }) {
  const results = new Map(SITUATIONS.map(({ id }) => [id, []]));
  for (const situation of SITUATIONS) await measure(envoy, files, situation, 1); // V8 compiles what is used a lot anew
  for (let round = 0; round < rounds; round += 1) {
    const start = Math.floor((round * SITUATIONS.length) / rounds);
    for (const situation of [...SITUATIONS.slice(start), ...SITUATIONS.slice(0, start)]) {
      results.get(situation.id).push(await measure(envoy, files, situation, seconds));
    }
    tell(`round ${round + 1} of ${rounds}`);
  }
  return results;
}

/** The 99th percentile of latency, in microseconds, of situations in turn at one constant rate. */
export async function measureLatency(envoy, ids, { rounds, seconds, rate }) {
  const results = new Map(ids.map((id) => [id, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const id of round % 2 === 0 ? ids : ids.toReversed()) {
      const situation = SITUATIONS.find((situation) => situation.id === id);
      const { statuses, latencies, rate: reached } = await paced({ ...target(envoy, situation), seconds, rate });
      assert.deepEqual(statuses, [situation.status], `every answer of \`${id}\``);
      results.get(id).push({ p50: percentile(latencies, 0.5), p99: percentile(latencies, 0.99), reached });
    }
  }
  return results;
}

async function measure(envoy, files, situation, seconds) {
  const { id, listener, status, token } = situation;
  const file = token === "new" ? files[algorithm(situation)] : undefined;
  const line = file?.next[listener] ?? 0;
  const tokens = file && { file: file.file, from: line * file.lineBytes };
  const before = await envoy.counters(counters(situation));
  const [cpu, clock] = [cpuSeconds(envoy.pid), performance.now()];
  const result = await saturate({ ...target(envoy, situation), seconds, tokens });
  const spent = cpuSeconds(envoy.pid) - cpu;
  const busy = spent / ((performance.now() - clock) / 1000);
  const after = await envoy.counters(counters(situation));
  const [answered, wrong, signatures] = ["answered", "wrong", "signatures"].map((name) => after[name] - before[name]);

  assert.equal(wrong, 0, `every answer of \`${id}\` is ${status}`);
  assert.ok(answered >= result.requests, `Envoy has answered the requests of \`${id}\``);
  const checked = signatures / answered;
  if (token !== "new") assert.ok(checked < 0.01, `\`${id}\` knows its token: ${checked}`);
  else if (listener.startsWith("gate")) assert.ok(checked > 0.98, `\`${id}\` knows none of its tokens: ${checked}`);
  // The next round goes on behind those that were under way in the end.
  if (file) file.next[listener] = (line + answered + UNDER_WAY) % file.count;
  return { rate: result.rate, busy, cpu: (1e6 * spent) / answered, checked };
}

function target(envoy, situation) {
  const { listener, path, token } = situation;
  const alg = algorithm(situation);
  const cookie = {
    none: () => undefined,
    password: () => mint({ alg, claims: { amr: ["pwd"] } }),
    mfa: () => mint({ alg }),
    new: () => "{token}",
  }[token]();
  return { url: `http://127.0.0.1:${envoy.port(listener)}${path}`, headers: browserHeaders(cookie) };
}

/** Answers by class, and signatures: those that a gate checks, and those that jwt_authn has not found in its cache. */
function counters({ listener, status }) {
  const right = `${Math.floor(status / 100)}xx`;
  return {
    answered: new RegExp(`^http\\.${listener}\\.downstream_rq_${right}$`),
    wrong: new RegExp(`^http\\.${listener}\\.downstream_rq_(?!${right})[1-5]xx$`),
    signatures: new RegExp(`^(wasmcustom\\.stepgate_signatures\\.|http\\.${listener}\\.jwt_authn\\..*jwt_cache_miss$)`),
  };
}

function algorithm({ listener }) {
  return LISTENERS[listener].alg ?? "RS256";
}

function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}
