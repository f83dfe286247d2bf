// What a gate answers, by the kind of request, in real Envoy.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import http2 from "node:http2";
import { after, before, describe, test } from "node:test";

import { REQUEST_ID, startEnvoy } from "./support/envoy.mjs";
import {
  ask, assertHealthy, AUTHORIZE, cookie, decisions, expect, fetches, fetchingGate, inlineGate, MULTI_FACTOR, NAVIGATION,
} from "./support/gate.mjs";
import { connect, CookieJar, requestH2 } from "./support/http.mjs";
import { METADATA, silent, startProvider } from "./support/provider.mjs";
import { mint } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const WEBSOCKET = [
  ["connection", "Upgrade"],
  ["upgrade", "websocket"],
  ["sec-websocket-version", "13"],
  ["sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="],
];
const password = () => mint({ claims: { amr: ["pwd"] } });

describe("answers", () => {
  let upstream;
  let provider;
  let envoy;

  before(async () => {
    upstream = await startUpstream();
    provider = await startProvider();
    provider.answers("/jwks", silent);
    envoy = await startEnvoy({
      listeners: [
        { name: "gate", config: inlineGate({ step_up: { max_attempts: 3 } }) },
        { name: "timed", config: inlineGate({ rules: [{ paths: ["/salary/**"], require: { amr: "mfa", max_age: "5m" } }] }) },
        { name: "always401", config: inlineGate({ rules: [{ paths: ["/salary/**"], answer: "unauthorized" }] }) },
        { name: "always302", config: inlineGate({ rules: [{ paths: ["/salary/**"], answer: "redirect" }] }) },
        { name: "report", config: inlineGate({ rules: [{ paths: ["/salary/**"], mode: "report" }] }) },
        { name: "nokeys", config: fetchingGate(provider, { provider: { timeout: "1s" } }) },
      ],
      clusters: { app: upstream.port, idp: provider.port },
    });
  });
  after(async () => {
    await envoy?.stop();
    await provider?.stop();
    await upstream?.stop();
  });

  const refused = async (name, options, status, reason) => {
    const before = upstream.count;
    const answer = await expect(envoy, name, options, status, reason);
    assert.equal(upstream.count, before, "the app sees nothing");
    return answer;
  };

  const NAVIGATIONS = {
    "a browser's navigation": NAVIGATION,
    "a browser without fetch metadata": [["accept", "text/html,*/*;q=0.8"]],
    "an XHTML browser": [["accept", "application/xhtml+xml"]],
    "curl": [["user-agent", "curl/8.5.0"], ["accept", "*/*"]],
    "a request that says nothing": [],
  };
  for (const [who, headers] of Object.entries(NAVIGATIONS)) {
    test(`302 to ${who}`, async () => {
      const answer = await refused("gate", { headers }, 302, "token_missing");
      assert.ok(answer.header("location").startsWith(`${AUTHORIZE}?`));
      assert.equal(answer.header("cache-control"), "no-store");
      assert.equal(answer.header("www-authenticate"), undefined);
    });
  }

  const OTHERS = {
    "XHR": [["x-requested-with", "XMLHttpRequest"], ["accept", "*/*"]],
    "fetch, cors": [["sec-fetch-mode", "cors"], ["sec-fetch-dest", "empty"], ["accept", "*/*"]],
    "fetch, same origin": [["sec-fetch-mode", "same-origin"], ["sec-fetch-dest", "empty"], ["accept", "*/*"]],
    "an image": [["sec-fetch-mode", "no-cors"], ["sec-fetch-dest", "image"], ["accept", "image/avif,image/webp,*/*;q=0.8"]],
    "a frame": [["sec-fetch-mode", "navigate"], ["sec-fetch-dest", "iframe"], ["accept", "text/html"]],
    "an API client": [["accept", "application/json"]],
    "an event stream": [["accept", "text/event-stream"]],
  };
  for (const [who, headers] of Object.entries(OTHERS)) {
    test(`401 to ${who}`, async () => {
      const answer = await refused("gate", { headers: [...headers, cookie(password())] }, 401, "amr_insufficient");
      assert.equal(answer.header("location"), undefined);
      assert.equal(answer.header("cache-control"), "no-store");
      assert.match(answer.header("www-authenticate"), /^Bearer error="insufficient_user_authentication"/);
      assert.equal(answer.header("content-type").split(";")[0], "application/problem+json");
      assert.equal(answer.json().reason, "amr_insufficient");
      assert.ok(answer.json().step_up_url.startsWith(`${AUTHORIZE}?`));
    });
  }

  test("the challenge names what is asked for", async () => {
    const headers = [["accept", "application/json"]];
    const old = mint({ claims: { auth_time: Math.floor(Date.now() / 1000) - 600 } });
    const answer = await refused("timed", { headers: [...headers, cookie(old)] }, 401, "auth_too_old");
    const challenge = answer.header("www-authenticate");
    assert.match(challenge, /^Bearer error="insufficient_user_authentication"/);
    assert.ok(challenge.includes(`acr_values="${MULTI_FACTOR}"`));
    assert.match(challenge, /max_age="?300"?/);
    assert.equal(answer.all("www-authenticate").length, 1);

    const missing = await refused("timed", { headers }, 401, "token_missing");
    assert.match(missing.header("www-authenticate"), /^Bearer error="invalid_token"/);
  });

  test("`answer` of a rule decides for every kind of request", async () => {
    await refused("always401", { headers: NAVIGATION }, 401, "token_missing");
    await refused("always302", { headers: [["accept", "application/json"]] }, 302, "token_missing");
  });

  test("HEAD, OPTIONS and unknown methods are decided like any other", async () => {
    for (const method of ["HEAD", "POST", "OPTIONS", "DELETE", "PROPFIND"]) {
      const { answer } = await ask(envoy, "gate", { method });
      assert.ok([302, 303, 401].includes(answer.status), `${method}: ${answer.status}`);
    }
    for (const method of ["TRACE", "REPORT", "QUERY"]) { // Envoy itself may answer 400 to one that it does not know
      const { status } = await requestH2(envoy.port("gate"), { method, path: "/salary" });
      assert.ok([302, 303, 400, 401].includes(status), `${method}: ${status}`);
    }
    assert.equal(upstream.at("/salary").length, 0);
  });

  test("gRPC: a status of 16 in the trailers, and nothing else", async () => {
    const before = upstream.count;
    const id = randomUUID();
    const answer = await requestH2(envoy.port("gate"), {
      method: "POST",
      path: "/salary/payroll.Payroll/List",
      headers: { "content-type": "application/grpc", te: "trailers", [REQUEST_ID]: id },
      body: Buffer.from([0, 0, 0, 0, 0]),
    });
    assert.equal(answer.status, 200);
    assert.equal(answer.header("content-type"), "application/grpc");
    assert.equal(answer.header("grpc-status"), "16");
    assert.equal(answer.header("location"), undefined);
    assert.equal(answer.body.length, 0);
    const { reason, details } = await envoy.accessLog(id);
    assert.deepEqual({ reason, details }, { reason: "token_missing", details: "stepgate_token_missing" });
    assert.equal(upstream.count, before);
  });

  test("gRPC with a good token reaches the app", async () => {
    const path = "/salary/payroll.Payroll/Get";
    const [name, value] = cookie(mint());
    const headers = { "content-type": "application/grpc", te: "trailers", [name]: value };
    await requestH2(envoy.port("gate"), { method: "POST", path, headers, body: Buffer.from([0, 0, 0, 0, 0]) });
    assert.equal(upstream.at(path).length, 1);
  });

  test("a WebSocket upgrade: 401, or through to the app", async () => {
    const refusal = await refused("gate", { path: "/salary/feed", headers: WEBSOCKET }, 401, "token_missing");
    assert.equal(refusal.header("location"), undefined);
    await refused("gate", { path: "/salary/feed", headers: [...WEBSOCKET, ...NAVIGATION] }, 401, "token_missing");

    const connection = await connect(envoy.port("gate"));
    const answer = await connection.request({ path: "/salary/feed", headers: [...WEBSOCKET, cookie(mint())] });
    assert.equal(answer.status, 101);
    connection.close();
  });

  test("an extended CONNECT over HTTP/2 is an upgrade as well", async () => {
    const session = http2.connect(envoy.url("gate"));
    await new Promise((resolve, reject) => session.once("remoteSettings", resolve).once("error", reject));
    const before = upstream.count;
    const stream = session.request({
      ":method": "CONNECT", ":protocol": "websocket", ":path": "/salary/feed", ":authority": "app.example.com", ":scheme": "http",
      "sec-websocket-version": "13",
    });
    const status = await new Promise((resolve, reject) => {
      stream.once("response", (headers) => resolve(headers[":status"]));
      stream.once("error", reject);
      stream.setTimeout(5_000, () => reject(new Error("no answer")));
    });
    assert.equal(status, 401);
    assert.equal(upstream.count, before);
    session.destroy();
  });

  test("400 where a path cannot be read safely and may be meant for a rule", async () => {
    for (const path of ["/salary%00", "/salary/%00", "/salary%0a", "/salary/%zz", "/salary/a%"]) {
      await refused("gate", { path, headers: [cookie(mint())] }, 400, "path_rejected");
    }
    await expect(envoy, "gate", { path: "/news/%zz" }, 200, null);
  });

  test("other ways to write a protected path are protected", async () => {
    const ways = [
      "//salary", "/%2fsalary", "/./salary", "/news/../salary", "/news/..%2fsalary", "/news/%2e%2e/salary", "/sal%61ry",
      "/%73alary", "/sal%2561ry", "/salary;x=1", "/salary/", "/salary#x", "/salary?x", "/\\salary", "/salary/../salary",
      "http://app.example.com/salary", "http://app.example.com//salary",
    ];
    const before = upstream.count;
    for (const path of ways) {
      const { answer } = await ask(envoy, "gate", { path });
      assert.ok([302, 400, 401].includes(answer.status), `${path}: ${answer.status}`);
      assert.equal(upstream.count, before, `${path}: the app sees nothing`);
    }
  });

  test("503 while there are no keys", async () => {
    const headers = [cookie(mint({ claims: { iss: provider.issuer } }))];
    const answer = await refused("nokeys", { headers }, 503, "keys_unavailable");
    assert.match(answer.header("retry-after"), /^[1-9]\d*$/);
    assert.equal(answer.header("location"), undefined);
    assert.equal(answer.header("cache-control"), "no-store");
    assert.ok((await envoy.sum(decisions("unavailable", "keys_unavailable"))) >= 1);
    await envoy.until(fetches("keys", "[^.]+"));
    assert.equal(await envoy.sum(fetches("keys", "ok")), 0);
    assert.equal(provider.count(METADATA), 0, "what is configured is not discovered");
  });

  test("`mode: report` forwards, and counts what it would have done", async () => {
    const cases = [[[], "token_missing"], [[cookie(password())], "amr_insufficient"], [[cookie("junk")], "token_malformed"]];
    for (const [headers, reason] of cases) {
      const [counter, before] = [decisions("report", reason), upstream.count];
      const earlier = await envoy.sum(counter);
      const { answer } = await ask(envoy, "report", { headers });
      assert.equal(answer.status, 200);
      assert.equal(upstream.count, before + 1);
      assert.equal(await envoy.sum(counter), earlier + 1, reason);
    }
    await expect(envoy, "report", { headers: [cookie(mint())] }, 200, "satisfied");
  });

  test("a protected page that passes varies by cookie", async () => {
    const answer = await expect(envoy, "gate", { headers: [cookie(mint())] }, 200, "satisfied");
    assert.match(answer.header("vary") ?? "", /(^|,\s*)cookie($|,)/i);
    const other = await expect(envoy, "gate", { path: "/news" }, 200, null);
    assert.equal(other.header("vary"), undefined);
  });

  test("a browser that comes back for ever without success gets an explained 403", async () => {
    const jar = new CookieJar();
    const back = [...NAVIGATION, ["sec-fetch-site", "cross-site"]];
    const again = async (token, status, reason) => {
      jar.set("id_token", token);
      const answer = await expect(envoy, "gate", { headers: [...back, jar.header()] }, status, reason);
      jar.take(answer);
      return answer;
    };
    for (let attempt = 1; attempt <= 3; attempt += 1) await again(password(), 302, "amr_insufficient");
    const answer = await again(password(), 403, "step_up_failed");
    assert.equal(answer.header("cache-control"), "no-store");
    assert.equal(answer.header("location"), undefined);
    assert.match(answer.header("content-type"), /^text\/html/);
    assert.ok(answer.text().length > 100, "it explains");
    assert.ok((await envoy.sum(decisions("forbidden", "step_up_failed"))) >= 1);

    await again(mint(), 200, "satisfied");
  });

  test("someone else is not affected by that", async () => {
    await refused("gate", { headers: [...NAVIGATION, ["sec-fetch-site", "cross-site"]] }, 302, "token_missing");
  });

  test("every worker is healthy at the end", async () => {
    await assertHealthy(envoy, "gate", upstream);
  });
});
