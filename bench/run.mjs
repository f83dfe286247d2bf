// `make bench`: what the gate costs, beside what else could stand in its place. README.md tells what is measured and how.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { envoyBinary, stepgateModule } from "../tests/e2e/support/envoy.mjs";
import { LISTENERS, PROTECTED, SITUATIONS, TARGETS, browserHeaders } from "./arrangements.mjs";
import { startAuthorizer } from "./authorizer.mjs";
import { checkAnswers } from "./checks.mjs";
import { launchEnvoy } from "./envoy.mjs";
import { measureFlood } from "./flood.mjs";
import { markdown, plot } from "./report.mjs";
import { measureLatency, measureRounds, prepareTokens } from "./rounds.mjs";
import { weigh } from "./size.mjs";
import { measureRest, measureStarts } from "./starts.mjs";
import { median, spread } from "./statistics.mjs";
import { mint } from "./tokens.mjs";

const OUTPUT = fileURLToPath(new URL("../dist/bench/", import.meta.url));
const ROUNDS = setting("BENCH_ROUNDS", 5);
const SECONDS = setting("BENCH_SECONDS", 3);
const STARTS = setting("BENCH_STARTS", 9);
const FLOOD = setting("BENCH_FLOOD", 200_000);
/** Requests with a token that comes once, for each with one of those in use. */
const FLOOD_SHAPES = [4, 49];

// So that what is under way ends as well, and leaves nothing behind.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

const begun = performance.now();
tell("tokens to see once");
const files = await prepareTokens();
const results = { machine: machine(), rounds: ROUNDS, seconds: SECONDS, size: weigh(stepgateModule()), ...(await measureServing(files)) };
tell(`${STARTS} starts each`);
results.starts = await measureStarts(STARTS);
tell("memory at rest");
results.rest = await measureRest();
results.flood = await measureFlood(FLOOD, FLOOD_SHAPES, tell);
results.targets = judge(results);

mkdirSync(OUTPUT, { recursive: true });
writeFileSync(path.join(OUTPUT, "results.json"), `${JSON.stringify(results, null, 2)}\n`);
writeFileSync(path.join(OUTPUT, "results.md"), markdown(results));
writeFileSync(path.join(OUTPUT, "results.svg"), plot(results));
console.log(`\n${markdown(results)}`);
tell(`done: ${path.relative(process.cwd(), OUTPUT)}/results.{md,json,svg}`);

async function measureServing(files) {
  const authorizer = await startAuthorizer();
  const filters = Object.entries(LISTENERS).map(([name, { filters }]) => [name, filters]);
  const envoy = await launchEnvoy(Object.fromEntries(filters), { authorizer: authorizer.socket });
  try {
    await envoy.ready();
    await checkAnswers(envoy);
    tell("every arrangement answers as it should; warming up");
    const rates = await measureRounds(envoy, files, { rounds: ROUNDS, seconds: SECONDS, tell });
    const ids = ["gate_seen", "jwt_seen"];
    // Half of what the slower one can answer, for both.
    const rate = Math.floor(Math.min(...ids.map((id) => median(rates.get(id).map(({ rate }) => rate)))) / 2);
    tell(`latency at ${rate} requests per second`);
    const latency = await measureLatency(envoy, ids, { rounds: ROUNDS, seconds: SECONDS, rate });
    return {
      situations: SITUATIONS.map(({ id, title, token }) => {
        const runs = rates.get(id);
        return {
          id, title, token,
          rates: runs.map(({ rate }) => rate),
          rate: spread(runs.map(({ rate }) => rate)),
          cpus: runs.map(({ cpu }) => cpu),
          busy: median(runs.map(({ busy }) => busy)),
          checked: median(runs.map(({ checked }) => checked)),
        };
      }),
      latency: { rate, ...Object.fromEntries(latency) },
    };
  } finally {
    await envoy.stop();
    await authorizer.stop();
  }
}

/** Each target beside what was reached. Two that are compared are compared within each round. */
function judge({ situations, latency, rest, starts, flood }) {
  const runs = new Map(situations.map((situation) => [situation.id, situation]));
  const rows = TARGETS.map(({ title, of, over, least }) => {
    const [gate, peer] = [runs.get(of), runs.get(over)];
    const ratios = gate.rates.map((rate, round) => rate / peer.rates[round]);
    const byCpu = median(gate.cpus.map((cpu, round) => peer.cpus[round] / cpu));
    return { title, unit: "×", least, byCpu, ...spread(ratios) };
  });
  const slower = latency.gate_seen.map(({ p99 }, round) => p99 / latency.jwt_seen[round].p99);
  const late = starts.gate.map(({ wall }, time) => wall - starts.noop[time].wall);
  const mebibytes = (bytes) => bytes / 1024 ** 2;
  rows.push(
    { title: "p99 latency at half load, token seen before : jwt_authn with cache + RBAC", unit: "×", most: 1, ...spread(slower) },
    { title: "memory of a worker's VM at rest, 10 rules, 4 keys", unit: "MiB", most: 6, ...spread([mebibytes(rest.gate)]) },
    { title: "start, beyond the filter that does nothing", unit: "ms", most: 50, ...spread(late) },
  );
  for (const { strangers, inUse, checked } of flood) {
    rows.push({ title: `flood, ${strangers} tokens seen once : 1 in use: of those in use found in the cache`, unit: "%", ...spread([100 * (1 - checked / inUse)]) });
  }
  return rows.map((row) => ({ ...row, reached: (row.least === undefined || row.median >= row.least) && (row.most === undefined || row.median <= row.most) }));
}

function machine() {
  const { cookie, ...headers } = browserHeaders("");
  return {
    processor: cpus()[0].model,
    envoy: execFileSync(envoyBinary(), ["--version"], { encoding: "utf8" }).match(/\/(\d+\.\d+\.\d+)\//)?.[1],
    token: mint().length,
    headers: Object.keys(headers).length + 1,
    path: PROTECTED,
  };
}

function setting(variable, otherwise) {
  const value = Number(process.env[variable] || otherwise);
  if (!Number.isInteger(value) || value < 1) throw new Error(`${variable} must be a whole number, at least 1`);
  return value;
}

function tell(message) {
  console.error(`${String(Math.round((performance.now() - begun) / 1000)).padStart(4)} s  ${message}`);
}
