// `make bench-edge`: what the gate costs in workerd, beside a worker without one and the same check by hand. README.md tells how.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { PACKAGE, WORKERD } from "../tests/e2e/support/edge.mjs";
import { request } from "../tests/e2e/support/http.mjs";
import { PROTECTED, browserHeaders } from "./arrangements.mjs";
import { startAuthorizer } from "./authorizer.mjs";
import { saturate } from "./load.mjs";
import { ENVOY_CORE, cpuSeconds, pinned } from "./machine.mjs";
import { median, spread } from "./statistics.mjs";
import { CLIENT_ID, ISSUER, keySet, mint, tokenFile } from "./tokens.mjs";

const OUTPUT = fileURLToPath(new URL("../dist/bench/", import.meta.url));
const HERE = fileURLToPath(new URL("edge/", import.meta.url));
const ROUNDS = Number(process.env.BENCH_ROUNDS || 5);
const SECONDS = Number(process.env.BENCH_SECONDS || 3);
const STARTS = Number(process.env.BENCH_STARTS || 9);
const NEW_TOKENS = 60_000;

const require = createRequire(import.meta.url);
const JOSE = path.dirname(require.resolve("jose"));

const CONFIG = {
  provider: { issuer: ISSUER, authorization_endpoint: `${ISSUER}authorize`, jwks: keySet() },
  client: { id: CLIENT_ID, redirect_uri: "https://app.example.com/callback" },
  rules: [{ paths: ["/salary/**"] }],
};
const CALLBACK = {
  ...CONFIG,
  provider: { ...CONFIG.provider, token_endpoint: `${ISSUER}token` },
  client: { ...CONFIG.client, secret: "a secret of the client, long enough" },
  callback: { keys: [Buffer.alloc(32, 7).toString("base64")] },
  forward: { headers: { "x-user-id": "sub" } },
};

/** Workers, each with its modules and configuration. */
const WORKERS = {
  plain: { script: "plain.js" },
  gate: { script: "gate.js", config: CONFIG },
  gate_callback: { script: "gate.js", config: CALLBACK },
  jose: { script: "jose.js", config: CONFIG },
};

/** What is timed: a worker, and whether its requests bring one token or a new one each. */
const SITUATIONS = [
  { id: "plain", worker: "plain", token: "seen" },
  { id: "gate_seen", worker: "gate", token: "seen" },
  { id: "jose_seen", worker: "jose", token: "seen" },
  { id: "gate_callback_seen", worker: "gate_callback", token: "seen" },
  { id: "gate_new", worker: "gate", token: "new" },
  { id: "jose_new", worker: "jose", token: "new" },
];

const TARGETS = [
  { title: "token seen before : plain proxy worker", of: "gate_seen", over: "plain", least: 0.9 },
  { title: "token seen before : worker with jose", of: "gate_seen", over: "jose_seen", least: 1.3 },
  { title: "every token new : worker with jose", of: "gate_new", over: "jose_new", least: 1 },
  { title: "token seen before, with callback and forward.headers : plain proxy worker", of: "gate_callback_seen", over: "plain" },
];

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

const origin = await startAuthorizer();
const rows = [];
try {
  rows.push(...await measureRates(), await measureStart(), measureSize());
} finally {
  await origin.stop();
}
for (const row of rows) {
  row.reached = (row.least === undefined || row.median >= row.least) && (row.most === undefined || row.median <= row.most);
}
mkdirSync(OUTPUT, { recursive: true });
writeFileSync(path.join(OUTPUT, "edge.json"), `${JSON.stringify(rows, null, 2)}\n`);
writeFileSync(path.join(OUTPUT, "edge.md"), markdown(rows));
console.log(markdown(rows));

async function measureRates() {
  const file = await tokenFile("RS256", NEW_TOKENS);
  const workerd = await startWorkers(WORKERS);
  const next = {};
  const results = new Map(SITUATIONS.map(({ id }) => [id, []]));
  try {
    await check(workerd);
    for (const situation of SITUATIONS) await measure(situation, 1);
    for (let round = 0; round < ROUNDS; round += 1) {
      const start = Math.floor((round * SITUATIONS.length) / ROUNDS);
      for (const situation of [...SITUATIONS.slice(start), ...SITUATIONS.slice(0, start)]) {
        results.get(situation.id).push(await measure(situation, SECONDS));
      }
      console.error(`round ${round + 1} of ${ROUNDS}`);
    }
  } finally {
    await workerd.stop();
  }
  for (const [id, runs] of results) {
    console.error(`${id.padEnd(20)} ${Math.round(median(runs.map(({ rate }) => rate)))}/s, ${median(runs.map(({ cpu }) => cpu)).toFixed(1)} µs`);
  }
  return TARGETS.map(({ title, of, over, least }) => {
    const [gate, peer] = [results.get(of), results.get(over)];
    const ratios = gate.map(({ rate }, round) => rate / peer[round].rate);
    const byCpu = median(gate.map(({ cpu }, round) => peer[round].cpu / cpu));
    return { title, unit: "×", least, byCpu, ...spread(ratios) };
  });

  async function measure({ worker, token }, seconds) {
    const line = next[worker] ?? 0;
    const tokens = token === "new" ? { file: file.file, from: line * file.lineBytes } : undefined;
    const headers = browserHeaders(token === "new" ? "{token}" : mint());
    const before = cpuSeconds(workerd.pid);
    const { requests, rate } = await saturate({ url: `http://127.0.0.1:${workerd.ports[worker]}${PROTECTED}`, headers, seconds, tokens });
    // The next round goes on behind those that were under way in the end.
    if (tokens) next[worker] = (line + requests + 100) % file.count;
    return { rate, cpu: (1e6 * (cpuSeconds(workerd.pid) - before)) / requests };
  }
}

/** Every worker must answer as it should before it is timed. */
async function check(workerd) {
  for (const [name, { config }] of Object.entries(WORKERS)) {
    const ask = async (cookie) => {
      const { host, ...headers } = browserHeaders(cookie);
      return (await request(workerd.ports[name], { host, path: PROTECTED, headers: Object.entries(headers) })).status;
    };
    const refused = config ? 302 : 200;
    const answers = [await ask(mint()), await ask(undefined), await ask(mint({ claims: { amr: ["pwd"] } }))];
    assert.deepEqual(answers, [200, refused, refused], name);
  }
}

/** From the start of the process to the first answer: a protected request with a token that was not seen. */
async function measureStart() {
  const late = [];
  for (let time = 0; time < STARTS; time += 1) {
    const took = {};
    for (const name of time % 2 === 0 ? ["plain", "gate"] : ["gate", "plain"]) {
      const began = performance.now();
      const workerd = await startWorkers({ [name]: WORKERS[name] });
      const { host, ...headers } = browserHeaders(mint());
      const { status } = await request(workerd.ports[name], { host, path: PROTECTED, headers: Object.entries(headers) });
      took[name] = performance.now() - began;
      assert.equal(status, 200);
      await workerd.stop();
    }
    late.push(took.gate - took.plain);
  }
  return { title: "cold start, beyond the worker without Wasm", unit: "ms", most: 10, ...spread(late) };
}

function measureSize() {
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: PACKAGE, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const [{ size }] = JSON.parse(packed);
  return { title: "package, compressed", unit: "KiB", most: 300, ...spread([size / 1024]) };
}

/** One workerd on one core, with a socket for each worker. */
async function startWorkers(workers) {
  const directory = mkdtempSync(path.join(tmpdir(), "stepgate-bench-edge-"));
  const file = (name, content) => {
    const flat = name.replaceAll("/", "_");
    writeFileSync(path.join(directory, flat), content);
    return `embed "${flat}"`;
  };
  const core = readdirSync(PACKAGE).filter((name) => /\.(js|wasm)$/.test(name)).map((name) =>
    `(name = "stepgate/${name === "worker.js" ? "worker" : name}", ${name.endsWith("wasm") ? "wasm" : "esModule"} = ${file(`stepgate/${name}`, readFileSync(path.join(PACKAGE, name)))})`);
  const jose = readdirSync(JOSE, { recursive: true }).filter((name) => name.endsWith(".js")).map((name) =>
    `(name = "jose/${name}", esModule = ${file(`jose/${name}`, readFileSync(path.join(JOSE, name)))})`);
  const services = Object.entries(workers).map(([name, { script, config }]) => {
    const further = { "gate.js": core, "jose.js": jose }[script] ?? [];
    const json = config ? [`(name = "config.json", json = ${file(`${name}.json`, JSON.stringify(config))})`] : [];
    const modules = [`(name = "main.js", esModule = ${file(script, readFileSync(path.join(HERE, script)))})`, ...json, ...further];
    return `(name = "${name}", worker = (modules = [${modules.join(", ")}],
      bindings = [(name = "APP", service = "app")], compatibilityDate = "2026-11-01"))`;
  });
  const sockets = Object.keys(workers).map((name) => `(name = "${name}", address = "127.0.0.1:0", http = (), service = "${name}")`);
  writeFileSync(path.join(directory, "config.capnp"), `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [${services.join(",\n")}, (name = "app", external = (address = "unix:${origin.socket}", http = ()))],
  sockets = [${sockets.join(",\n")}],
);
`);
  const [command, args] = pinned(ENVOY_CORE, WORKERD, ["serve", "--control-fd=3", path.join(directory, "config.capnp")]);
  const child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "pipe"] });
  const end = () => child.kill("SIGKILL");
  process.once("exit", end);
  const ports = {};
  for await (const line of createInterface({ input: child.stdio[3] })) {
    const { socket, port } = JSON.parse(line);
    ports[socket] = port;
    if (Object.keys(ports).length === Object.keys(workers).length) break;
  }
  return {
    pid: child.pid,
    ports,
    async stop() {
      child.kill("SIGKILL");
      await once(child, "close");
      process.removeListener("exit", end);
      rmSync(directory, { recursive: true });
    },
  };
}

function markdown(rows) {
  const number = (value, unit) => value.toFixed(unit === "×" ? 2 : 1);
  const lines = rows.map(({ title, unit, least, most, median, min, max, byCpu, reached }) => {
    const target = least !== undefined ? `≥ ${least}` : most !== undefined ? `≤ ${most}` : "";
    const cpu = byCpu === undefined ? "" : byCpu.toFixed(2);
    return `| ${title} | ${number(median, unit)} ${unit} (${number(min, unit)} to ${number(max, unit)}) | ${cpu} | ${target} | ${reached ? "" : "**missed**"} |`;
  });
  return ["| at the edge, in workerd | median (range) | by CPU time | target | |", "| --- | --- | --- | --- | --- |", ...lines, ""].join("\n");
}
