// What a gate at the edge holds and gives back, in Node, whose clock and whose provider these tests have in hand: requests on hold
// are bounded, and leave nothing behind however they end.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { createGate } from "../../dist/edge/node.js";
import { MAX_COLLECTING } from "../../dist/edge/gate.js";
import { KeyRing, MAX_IMPORTED_KEYS } from "../../dist/edge/keys.js";
import { CLIENT_ID, ISSUER, mint, publicKeys } from "./support/tokens.mjs";
import { deferred } from "./support/wait.mjs";

const ENDPOINTS = {
  issuer: ISSUER, authorization_endpoint: `${ISSUER}authorize`, token_endpoint: `${ISSUER}token`, jwks_uri: `${ISSUER}jwks`,
};

/** The value of a constant of the host's source. */
function limit(name) {
  const text = readFileSync(new URL("../../src/host/edge/waiting.rs", import.meta.url), "utf8");
  const [, expression] = new RegExp(`const ${name}: [^=]*= ([^;]*);`).exec(text);
  return expression.replaceAll("_", "").split(" * ").map(Number).reduce((product, factor) => product * factor, 1);
}

/** A gate whose provider answers as `answer` says. */
async function gateWith(answer, sections = {}) {
  const decided = [];
  const clock = { millis: Date.now() };
  const calls = [];
  const gate = await createGate({
    config: {
      provider: { issuer: ISSUER, jwks_uri: ENDPOINTS.jwks_uri, authorization_endpoint: ENDPOINTS.authorization_endpoint },
      client: { id: CLIENT_ID, redirect_uri: "https://app.example.com/callback", secret: "s3cret of the client" },
      rules: [{ paths: ["/salary/**"] }],
      ...sections,
    },
    now: () => clock.millis,
    fetch: (url, init) => { calls.push({ url, init }); return answer(url, init, calls.length); },
    onDecision: ({ reason }) => decided.push(reason),
    onFetch() {},
  });
  return { gate, decided, clock, calls };
}

function asking(options = {}) {
  return new Request("https://app.example.com/salary", {
    ...options, headers: { host: "app.example.com", cookie: `id_token=${mint()}`, ...options.headers },
  });
}

const passed = () => new Response("the app");
const keys = () => Response.json({ keys: publicKeys("RS256") });

test("many requests wait for one fetch, and one more than may wait does not", async () => {
  const held = deferred();
  const { gate, calls, decided } = await gateWith(() => held.promise.then(keys));
  const most = limit("MAX_WAITING");
  const waiting = Array.from({ length: most }, () => gate.handle(asking(), passed));
  assert.equal(gate.waiting, most);
  const last = await gate.handle(asking(), passed);
  assert.equal(last.status, 503);
  assert.deepEqual(decided, ["keys_unavailable"]);
  held.resolve();
  const answers = await Promise.all(waiting);
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(calls.length, 1);
  assert.equal(gate.waiting, 0);
});

test("the heads of those that wait are bounded in bytes", async () => {
  const { gate } = await gateWith(() => new Promise(() => {}));
  const padding = "x".repeat(1024 * 1024);
  const waiting = [];
  while (waiting.length < 64) {
    const before = gate.waiting;
    const answer = gate.handle(asking({ headers: { "x-padding": padding } }), passed);
    if (gate.waiting === before) {
      assert.equal((await answer).status, 503);
      break;
    }
    answer.catch(() => {});
    waiting.push(answer);
  }
  assert.ok(waiting.length >= 1 && waiting.length <= limit("MAX_WAITING_BYTES") / padding.length, `${waiting.length}`);
  gate.close();
});

test("a client that gives up is forgotten at once, and costs nobody else the reply", async () => {
  const held = deferred();
  const { gate, calls } = await gateWith(() => held.promise.then(keys));
  const client = new AbortController();
  const first = gate.handle(asking({ signal: client.signal }), passed);
  const second = gate.handle(asking(), passed);
  assert.equal(gate.waiting, 2);
  client.abort();
  await assert.rejects(first, { name: "AbortError" });
  assert.equal(gate.waiting, 1);
  held.resolve();
  assert.equal((await second).status, 200);
  assert.equal(calls.length, 1);
  assert.equal(gate.waiting, 0);
});

test("who does not come back is forgotten in time", async () => {
  const { gate, clock } = await gateWith(() => new Promise(() => {}));
  for (let count = 0; count < limit("MAX_WAITING"); count += 1) gate.handle(asking(), passed).catch(() => {});
  assert.equal(gate.waiting, limit("MAX_WAITING"));
  clock.millis += 5_000 + 500 + 10_000 + 1; // `timeout`, LEASE_MARGIN, MAX_OVERDUE
  gate.handle(asking(), passed).catch(() => {});
  assert.equal(gate.waiting, 1);
  gate.close();
});

test("a fetch ends in time, and the next one comes after it", async () => {
  const { gate, decided } = await gateWith(
    (url, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
    { provider: { issuer: ISSUER, jwks_uri: ENDPOINTS.jwks_uri, authorization_endpoint: ENDPOINTS.authorization_endpoint, timeout: "100ms" } },
  );
  assert.equal((await gate.handle(asking(), passed)).status, 503);
  assert.deepEqual(decided, ["keys_unavailable"]);
});

test("redirects are not followed, a body that is too long is not read to its end", async () => {
  let pulled = 0;
  const endless = () => new Response(new ReadableStream({
    pull(controller) { pulled += 65_536; controller.enqueue(new Uint8Array(65_536)); },
  }));
  for (const answer of [() => new Response(null, { status: 302, headers: { location: "https://elsewhere.example/" } }), endless]) {
    const { gate, calls } = await gateWith(answer);
    assert.equal((await gate.handle(asking(), passed)).status, 503);
    assert.equal(calls.length, 1);
    assert.equal(calls[0].init.redirect, "manual");
  }
  assert.ok(pulled < 2 * 512 * 1024, `${pulled} bytes`);
});

test("keys are refreshed behind an answer, by waitUntil", async () => {
  const { gate, clock, calls } = await gateWith(keys);
  await gate.refresh();
  assert.equal(calls.length, 1);
  clock.millis += 11 * 60_000;
  const until = [];
  assert.equal((await gate.handle(asking(), passed, { waitUntil: (promise) => until.push(promise) })).status, 200);
  assert.equal(until.length, 1);
  await Promise.all(until);
  assert.equal(calls.length, 2);
});

test("a listener that throws has no say", async (t) => {
  t.mock.method(console, "error", () => {});
  const gate = await createGate({
    config: {
      provider: { ...ENDPOINTS, jwks: { keys: publicKeys("RS256") }, jwks_uri: undefined },
      client: { id: CLIENT_ID, redirect_uri: "https://app.example.com/callback" },
      rules: [{ paths: ["/salary/**"] }],
    },
    onDecision() { throw new Error("no"); },
  });
  assert.equal((await gate.handle(asking(), passed)).status, 200);
  assert.equal(console.error.mock.callCount(), 1);
});

test("a gate that was closed lets nothing through", async () => {
  const { gate } = await gateWith(keys);
  gate.close();
  const answer = await gate.handle(asking(), () => assert.fail("forwarded"));
  assert.equal(answer.status, 503);
  assert.equal(answer.headers.get("cache-control"), "no-store");
});

test("memory does not grow with requests that give up", async () => {
  const { gate } = await gateWith(() => new Promise(() => {}));
  const round = async () => {
    for (let count = 0; count < 2_000; count += 1) {
      const client = new AbortController();
      const answer = gate.handle(asking({ signal: client.signal }), passed);
      client.abort();
      await assert.rejects(answer);
    }
  };
  await round();
  const before = gate.memory;
  await round();
  await round();
  assert.equal(gate.memory, before);
  assert.equal(gate.waiting, 0);
  gate.close();
});

test("every algorithm, by WebCrypto and without it", async (t) => {
  const algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "EdDSA"];
  const gateOf = () => createGate({
    config: {
      provider: { issuer: ISSUER, authorization_endpoint: ENDPOINTS.authorization_endpoint, jwks: { keys: publicKeys(...algorithms) } },
      client: { id: CLIENT_ID, redirect_uri: "https://app.example.com/callback" },
      token: { algorithms },
      rules: [{ paths: ["/salary/**"] }],
    },
  });
  const answers = async (gate) => Promise.all(algorithms.flatMap((alg) => {
    const token = mint({ alg });
    const [head, payload, signature] = token.split(".");
    const forged = [head, payload, `${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`].join(".");
    return [token, forged].map((token) => gate.handle(asking({ headers: { cookie: `id_token=${token}` } }), passed));
  }));
  const verify = t.mock.method(crypto.subtle, "verify");
  const expected = algorithms.flatMap(() => [200, 302]);
  assert.deepEqual((await answers(await gateOf())).map(({ status }) => status), expected);
  assert.equal(verify.mock.callCount(), 2 * algorithms.length);
  t.mock.method(crypto.subtle, "importKey", () => Promise.reject(new DOMException("no", "NotSupportedError")));
  assert.deepEqual((await answers(await gateOf())).map(({ status }) => status), expected);
  assert.equal(verify.mock.callCount(), 2 * algorithms.length, "this time in software");
});

test("keys are imported once, and so many are kept", async (t) => {
  const imports = t.mock.method(crypto.subtle, "importKey");
  const ring = new KeyRing();
  const verify = (key) => ring.verify({ algorithm: "RS256", key: btoa(key), messageBytes: 0 }, new Uint8Array());
  for (let key = 0; key <= MAX_IMPORTED_KEYS; key += 1) await verify(`key ${key}`);
  await verify(`key ${MAX_IMPORTED_KEYS}`);
  assert.equal(imports.mock.callCount(), MAX_IMPORTED_KEYS + 1);
  await verify("key 0");
  assert.equal(imports.mock.callCount(), MAX_IMPORTED_KEYS + 2, "the oldest was forgotten");
});

test("bodies are awaited in a bounded number: the oldest is given up", async () => {
  const { gate, decided } = await gateWith(keys, {
    provider: { issuer: ISSUER, jwks: { keys: publicKeys("RS256") }, authorization_endpoint: ENDPOINTS.authorization_endpoint, token_endpoint: ENDPOINTS.token_endpoint },
    callback: { keys: [Buffer.alloc(32, 7).toString("base64")], response_mode: "form_post" },
  });
  const departure = await gate.handle(new Request("https://app.example.com/salary", { headers: { host: "app.example.com" } }), passed);
  const [cookie] = departure.headers.getSetCookie().find((line) => line.startsWith("__Host-stepgate_tx_")).split(";");
  const post = () => gate.handle(new Request("https://app.example.com/callback", {
    method: "POST", headers: { host: "app.example.com", cookie }, body: new ReadableStream({}), duplex: "half",
  }), passed);
  const first = post();
  const others = Array.from({ length: MAX_COLLECTING - 1 }, post);
  assert.equal(gate.waiting, MAX_COLLECTING);
  const last = post();
  assert.equal((await first).status, 400);
  assert.equal(decided.at(-1), "callback_malformed");
  assert.equal(gate.waiting, MAX_COLLECTING);
  [...others, last].forEach((answer) => answer.catch(() => {}));
  gate.close();
});
