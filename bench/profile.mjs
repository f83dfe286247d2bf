// Where a request's time goes in the module: `node bench/profile.mjs [seen|open|none|password|new] [MODULE]`.
//
// Envoy takes no V8 flags, so a profile of Envoy has no names for the module's functions. Here Node's V8 runs the same module
// behind the simplest host that will do, and says which functions the time is spent in. The host's own part is Node's, not
// Envoy's: look at the module's functions, and at how often it calls which host function.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { Session } from "node:inspector/promises";

import { OPEN, PROTECTED, browserHeaders, gateConfig } from "./arrangements.mjs";
import { mint, mintMany } from "./tokens.mjs";

const WARM_UP = 20_000;
const REQUESTS = { new: 20_000 };
const [situation = "seen", file = "dist/stepgate.wasm"] = process.argv.slice(2);
const COOKIES = {
  seen: mint(), open: mint(), none: undefined, password: mint({ claims: { amr: ["pwd"] } }),
};
if (situation !== "new" && !Object.hasOwn(COOKIES, situation)) throw new Error(`no situation \`${situation}\``);

const [OK, NOT_FOUND] = [0, 1];
const configuration = Buffer.from(JSON.stringify(gateConfig()));
const calls = new Map();
const keys = {};
let fields;
let pairs;

const env = {
  proxy_log: (level, text, size) => (console.error(bytes(text, size).toString()), OK),
  proxy_get_current_time_nanoseconds: (time) => (view().setBigUint64(time, BigInt(Date.now()) * 1_000_000n, true), OK),
  proxy_get_buffer_bytes: (kind, start, max, data, size) => give(configuration, data, size),
  proxy_get_header_map_pairs: (map, data, size) => give(pairs, data, size),
  proxy_get_header_map_value: (map, key, keySize, data, size) => give(Buffer.from(fields[bytes(key, keySize).toString()] ?? ""), data, size),
  proxy_get_shared_data: () => NOT_FOUND,
  proxy_call_foreign_function: (name, nameSize, given, givenSize, data, size) => give(verifySignature(bytes(given, givenSize)), data, size),
  proxy_define_metric: (kind, name, size, id) => (view().setUint32(id, 1, true), OK),
};
const wasi = {
  random_get: (at, size) => (crypto.getRandomValues(bytes(at, size)), OK),
  environ_sizes_get: (count, size) => (view().setUint32(count, 0, true), view().setUint32(size, 0, true), OK),
  clock_time_get: (id, precision, time) => (view().setBigUint64(time, BigInt(Date.now()) * 1_000_000n, true), OK),
};

const module = new WebAssembly.Module(readFileSync(file));
const imports = {};
for (const { module: namespace, name } of WebAssembly.Module.imports(module)) {
  const host = (namespace === "env" ? env : wasi)[name] ?? (() => OK);
  (imports[namespace] ??= {})[name] = (...given) => {
    calls.set(name, (calls.get(name) ?? 0) + 1);
    return host(...given);
  };
}
const { exports: gate } = new WebAssembly.Instance(module, imports);

gate._initialize();
gate.proxy_on_context_create(1, 0);
gate.proxy_on_vm_start(1, 0);
if (!gate.proxy_on_configure(1, configuration.length)) throw new Error("the gate refuses its configuration");

const count = REQUESTS[situation] ?? 200_000;
const tokens = situation === "new" ? await mintMany("RS256", count + WARM_UP) : undefined;
let next = 2;
bring(COOKIES[situation]);
for (let warm = 0; warm < WARM_UP; warm += 1) ask();
calls.clear();

const session = new Session();
session.connect();
await session.post("Profiler.enable");
await session.post("Profiler.setSamplingInterval", { interval: 100 });
await session.post("Profiler.start");
const begun = performance.now();
for (let request = 0; request < count; request += 1) ask();
const each = (1e6 * (performance.now() - begun)) / count;
const { profile } = await session.post("Profiler.stop");

console.log(`${situation}: ${each.toFixed(0)} ns each, of which`);
const own = new Map();
const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
profile.samples.forEach((sample, at) => {
  const { functionName, url } = frames.get(sample);
  const name = url.startsWith("wasm") ? readable(functionName) : `(host) ${functionName}`;
  own.set(name, (own.get(name) ?? 0) + profile.timeDeltas[at]);
});
const total = [...own.values()].reduce((sum, time) => sum + time, 0);
for (const [name, time] of [...own].sort(([, a], [, b]) => b - a).slice(0, Number(process.env.ROWS || 25))) {
  console.log(`${String(Math.round((each * time) / total)).padStart(8)} ns  ${name}`);
}
console.log("\nhost calls of a request");
for (const [name, times] of [...calls].sort(([, a], [, b]) => b - a)) console.log(`${(times / count).toFixed(2).padStart(8)}  ${name}`);

/** One request, as Envoy brings it: a stream begins, its headers come, the answer's headers go by, it ends. */
function ask() {
  if (tokens) bring(tokens[next - 2]);
  const id = next++;
  gate.proxy_on_context_create(id, 1);
  gate.proxy_on_request_headers(id, Object.keys(fields).length, 1);
  gate.proxy_on_response_headers(id, 3, 0);
  gate.proxy_on_delete(id);
}

function bring(token) {
  const { host, connection, ...headers } = browserHeaders(token);
  const path = situation === "open" ? OPEN : PROTECTED;
  fields = { ":authority": host, ":path": path, ":method": "GET", ":scheme": "http", ...headers };
  const all = Object.entries(fields);
  const head = Buffer.alloc(4 + 8 * all.length);
  head.writeUInt32LE(all.length);
  all.flat().forEach((text, at) => head.writeUInt32LE(text.length, 4 + 4 * at));
  pairs = Buffer.concat([head, Buffer.from(all.flat().map((text) => `${text}\0`).join(""))]);
}

function verifySignature(message) {
  const given = {};
  for (let at = 0; at < message.length;) {
    const tag = message[at++] >> 3;
    let size = 0;
    for (let shift = 0, byte = 128; byte > 127; shift += 7) size |= ((byte = message[at++]) & 127) << shift;
    given[tag] = message.subarray(at, at += size);
  }
  keys[given[2].length] ??= createPublicKey({ key: Buffer.from(given[2]), format: "der", type: "spki" });
  return Buffer.from(verify(given[1].toString(), given[4], keys[given[2].length], given[3]) ? [8, 1] : []);
}

function give(value, data, size) {
  const at = gate.proxy_on_memory_allocate(value.length);
  bytes(at, value.length).set(value);
  view().setUint32(data, at, true);
  view().setUint32(size, value.length, true);
  return OK;
}

function bytes(at, size) {
  return Buffer.from(gate.memory.buffer, at, size);
}

function view() {
  return new DataView(gate.memory.buffer);
}

function readable(name) {
  const legacy = /^_ZN(.*)17h[0-9a-f]{16}E$/.exec(name)?.[1];
  return (legacy ?? name).replaceAll("$LT$", "<").replaceAll("$GT$", ">").replaceAll("$u20$", " ").replaceAll("$RF$", "&").replaceAll("..", "::");
}
