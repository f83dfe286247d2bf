// Paths, differentially: targets around protected pages go through real Envoy to apps that read paths differently. Without
// MFA the gate must keep every one of them from the secret, however it is spelled, and must let ordinary URLs be.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { startEdgeRange } from "./paths/edge.mjs";
import { ordinaryUrls } from "./paths/ordinary.mjs";
import { ORIGINS } from "./paths/origins.mjs";
import { NORMALISATIONS, RULES, startRange } from "./paths/range.mjs";
import { startEnvoy } from "./support/envoy.mjs";
import { cookie, inlineGate } from "./support/gate.mjs";
import { connect } from "./support/http.mjs";
import { mint } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const SEED = Number(process.env.PATHS_SEED ?? 2026);
const TARGETS = 600;
const EDGE_TARGETS = 240;

/** Spellings of a protected page, and the origins that read them so. */
const DISGUISES = {
  "/salary/2026?x": "nginx proxied express url starlette tomcat lax router",
  "/users/7/salary??": "nginx proxied express url starlette tomcat lax router",
  "//salary/2026": "nginx proxied express starlette tomcat lax",
  "/salary//2026": "nginx proxied express url starlette tomcat lax router micro",
  "/users/7///salary": "nginx proxied express url starlette tomcat lax micro",
  "/salary\\2026": "proxied url",
  "/users/7/\\salary": "proxied url",
  "/users/7%2fsalary": "nginx proxied express url starlette lax micro",
  "/users/7%2fx/salary": "express router",
  "/us%65rs/7%2fx/salary": "router",
  "/%2Fsalary/2026": "nginx proxied express url starlette lax",
  "/users/7%5csalary": "proxied lax",
  "/users/7%252Fsalary": "proxied",
  "/./salary/2026": "nginx proxied express url starlette tomcat lax micro",
  "/%2e/salary/2026": "nginx proxied express url starlette tomcat lax micro",
  "/%252e/salary/2026": "proxied",
  "/x/../salary/2026": "nginx proxied express url starlette tomcat lax",
  "/x/%2e%2E/salary/2026": "nginx proxied express url starlette tomcat lax",
  "/x/.%2e/salary/2026": "nginx proxied express url starlette tomcat lax",
  "/x/%252e%252e/salary/2026": "proxied",
  "/x%2f../salary/2026": "nginx proxied express url starlette lax",
  "/x%252f../salary/2026": "proxied",
  "/x/..%2fsalary/2026": "nginx proxied express url starlette lax",
  "/x\\../salary/2026": "proxied url",
  "/x%5c..%5csalary/2026": "proxied lax",
  "/x;a/../salary/2026": "nginx proxied express url starlette tomcat lax",
  "/x//../salary/2026": "nginx proxied express starlette tomcat lax",
  "/x/y/../../salary/2026": "nginx proxied express url starlette tomcat lax",
  "/../salary/2026": "url",
  "/%3f/../salary/2026": "nginx proxied express url starlette tomcat lax",
  "/%23/../users/7/salary": "nginx proxied express url starlette tomcat lax",
  "/%25/../salary/2026": "nginx proxied express url starlette tomcat lax",
  "/%/../salary/2026": "url starlette",
  "/%ff/../salary/2026": "nginx proxied url starlette tomcat lax",
  "/x%0a/../salary/2026": "nginx proxied express url tomcat lax",
  "/users/7;x=1/salary": "proxied express url starlette tomcat lax",
  "/users/7%00/salary": "express url starlette router",
  "/users/7%0d%0a/salary": "express url starlette router",
  "/users/7%zz/salary": "starlette",
  "/users/7/salary%0a": "starlette",
  "/users/7/salary%20": "proxied",
  "/users/7/salary%3fx": "proxied",
  "/users/7/salary%23x": "proxied",
  "/users/7/salary/x/..": "express starlette tomcat lax",
  "/users/7/salary%2f": "starlette",
  "/salary/help/../2026": "nginx proxied express url starlette tomcat lax router",
  "/salary/help/..%2f2026": "nginx proxied express url starlette lax router",
  "/salary/help%2f../2026": "nginx proxied express url starlette lax router",
  "/salary/help;/../2026": "nginx proxied express url starlette tomcat lax",
  "/salary/help/": "proxied url starlette",
  "/salary/help%20": "express url starlette router",
  "//x/salary/2026": "url",
  "///x/salary/2026": "url",
  "/\\x/salary/2026": "proxied url",
  "//u@x:1/salary/2026": "url",
  "//x%2f../salary/2026": "nginx proxied express starlette lax",
  "http://x/salary/2026": "nginx proxied express url starlette tomcat lax router micro",
  "*salary/2026": "",
  "HTTPS://u:p@x:1/x/../salary/2026": "nginx proxied express url starlette tomcat lax",
  "http://x//x/salary/2026": "url",
  "/sal%61ry/2026": "nginx proxied express url starlette tomcat lax router micro",
  "/%73%61%6C%61%72%79/2026": "nginx proxied express url starlette tomcat lax router micro",
  "/sal%2561ry/2026": "proxied",
  "/SALary/2026": "express",
  "/salary;x=1/2026": "tomcat lax router",
  "/salary/2026;jsessionid=1": "proxied express url starlette tomcat lax router",
  "/;x/salary/2026": "tomcat lax",
  "/x/..;/salary/2026": "tomcat lax",
  "/x/..;a=b/salary/2026": "tomcat lax",
  "/x;a/..;b/users/7/salary;c": "tomcat lax",
  "/.;x/salary/2026": "tomcat lax",
  "/users/7/salary;x/y": "router",
  "/users//salary": "router",
  "/salary;/help": "router",
  "/x%2f..;/salary/2026": "lax",
  "/salary/2026%00.html": "express url starlette router micro",
  "/users/7/salary%00": "micro",
  "/users/7/salary%00.html": "micro",
  "/users/7%2fsalary;x": "lax",
};

describe("paths", () => {
  let range;

  before(async () => {
    range = await startRange();
  });
  after(() => range?.stop());

  test("the plain pages: with MFA or without a gate alone", async () => {
    const [name, value] = cookie(mint());
    for (const path of ["/salary/", "/salary/2026", "/users/7/salary"]) {
      for (const normalisation of Object.keys(NORMALISATIONS)) {
        for (const [origin, protocol] of Object.keys(ORIGINS).flatMap((origin) => [[origin, "h1"], [origin, "h2"]])) {
          const reveals = (gated, headers) => range.reveals({ origin, normalisation, gated }, { protocol, path, headers });
          const found = [await reveals(false), await reveals(true), await reveals(true, { [name]: value })];
          assert.deepEqual(found, [true, false, true], `${normalisation} ${origin} ${protocol} ${path}`);
        }
      }
    }
  });

  test("known disguises", async () => {
    const bypasses = [];
    for (const [path, expected] of Object.entries(DISGUISES)) {
      const readers = [];
      for (const origin of Object.keys(ORIGINS)) {
        if (await range.reveals({ origin, normalisation: "none", gated: false }, { path })) readers.push(origin);
        for (const normalisation of Object.keys(NORMALISATIONS)) {
          const isOpen = await range.reveals({ origin, normalisation, gated: true }, { path });
          if (isOpen) bypasses.push(`${normalisation} ${origin} ${path}`);
        }
      }
      assert.equal(readers.join(" "), expected, `who reads ${path} so`);
    }
    assert.deepEqual(bypasses, []);
  });

  test("a WebSocket's CONNECT has a path", async () => {
    const target = { protocol: "h2", method: "CONNECT", path: "/users/7%2Fsalary", headers: { ":protocol": "websocket" } };
    const way = { origin: "url", normalisation: "none" };
    assert.ok(await range.reveals({ ...way, gated: false }, target));
    assert.ok(!await range.reveals({ ...way, gated: true }, target));
  });

  test(`a sample, seed ${SEED}`, async (t) => {
    const { tried, bypasses, summary } = await range.sample(SEED, TARGETS);
    t.diagnostic(summary);
    assert.deepEqual(bypasses, []);
    for (const [way, { requests, open }] of tried) {
      assert.ok(open > requests / 50, `${way}: the sample is no test, only ${open} of ${requests} reach the secret`);
    }
    range.envoy.assertNoTrap();
  });

  describe("at the edge", () => {
    let edge;
    before(async () => {
      edge = await startEdgeRange(range.origins);
    });
    after(() => edge?.stop());

    test("the plain pages: with MFA or without a gate alone", async () => {
      const [name, value] = cookie(mint());
      for (const path of ["/salary/2026", "/users/7/salary"]) {
        for (const [way, origin] of edge.ways.flatMap((way) => Object.keys(ORIGINS).map((origin) => [way, origin]))) {
          const reveals = (gated, headers) => edge.reveals({ way, origin, gated }, { path, headers });
          const found = [await reveals(false), await reveals(true), await reveals(true, { [name]: value })];
          assert.deepEqual(found, [true, false, true], `${way} ${origin} ${path}`);
        }
      }
    });

    test("known disguises", async () => {
      const bypasses = [];
      const shots = edge.ways.flatMap((way) => Object.keys(ORIGINS).map((origin) => ({ way, origin })));
      await Promise.all(shots.map(async ({ way, origin }) => {
        let open = 0;
        for (const path of Object.keys(DISGUISES)) {
          if (await edge.reveals({ way, origin, gated: false }, { path })) open += 1;
          if (await edge.reveals({ way, origin, gated: true }, { path })) bypasses.push(`${way} ${origin} ${path}`);
        }
        assert.ok(open >= 7, `${way} ${origin}: only ${open} are read so`);
      }));
      assert.deepEqual(bypasses, []);
    });

    test(`a sample, seed ${SEED}`, async (t) => {
      const { tried, bypasses, summary } = await edge.sample(SEED, EDGE_TARGETS);
      t.diagnostic(summary);
      assert.deepEqual(bypasses, []);
      for (const [way, { requests, open }] of tried) {
        assert.ok(open > requests / 50, `${way}: the sample is no test, only ${open} of ${requests} reach the secret`);
      }
    });
  });
});

test("1,000 ordinary URLs are let through as they are", async (t) => {
  const urls = ordinaryUrls();
  assert.equal(urls.length, 1000);
  const upstream = await startUpstream();
  t.after(() => upstream.stop());
  const envoy = await startEnvoy({
    listeners: [
      { name: "gate", config: inlineGate({ rules: RULES }), extraHcm: NORMALISATIONS.none },
      { name: "folding", config: inlineGate({ rules: RULES, case_insensitive_paths: true }), extraHcm: NORMALISATIONS.none },
    ],
    clusters: { app: upstream.port },
  });
  t.after(() => envoy.stop());
  for (const listener of ["gate", "folding"]) {
    const connection = await connect(envoy.port(listener));
    t.after(() => connection.close());
    const refused = [];
    for (const path of urls) {
      const answer = await connection.request({ path });
      if (answer.status !== 200 || answer.json().path !== path) refused.push(`${answer.status} ${path}`);
    }
    assert.deepEqual(refused, [], listener);
  }
});
