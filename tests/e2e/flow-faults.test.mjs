// What can go wrong in the flow that the gate completes, with a stub provider and real Envoy: every fault of the token endpoint,
// of the provider's answer, of clients that leave. Each ends in an explained answer, sets nothing, and is not tried again.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { after, before, describe, test } from "node:test";

import { startEnvoy } from "./support/envoy.mjs";
import {
  assertHealthy, assertKept, decisions, discoveringGate, fetches, NAVIGATION, providerToken, stepUp,
} from "./support/gate.mjs";
import { connect } from "./support/http.mjs";
import { ORIGIN, Person } from "./support/person.mjs";
import * as provide from "./support/provider.mjs";
import { KEYS, METADATA, PUSHED, startProvider, TOKEN } from "./support/provider.mjs";
import { CLIENT_ID, mint, publicKeys, signingKey, tampered } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const KEY = randomBytes(32).toString("base64");
const CLIENT_SECRET = randomBytes(32).toString("base64url");
const MAX_REPLY_BYTES = 256 * 1024;
const TIMEOUT = 1_000;
const SCRIPT = [["accept", "application/json"], ["sec-fetch-mode", "cors"]];

/** Providers, and the gates in front of each: all in one Envoy. */
const PROVIDERS = {
  plain: { gates: { gate: {}, hasty: { provider: { timeout: `${TIMEOUT}ms` } } } },
  remote: {
    metadata: ({ port }) => ({ token_endpoint: `http://localhost:${port}${TOKEN}` }),
    gates: {
      unnamed: reaching({}),
      unknown: reaching({ localhost: "nowhere" }),
      empty: reaching({ localhost: "empty" }),
      closed: reaching({ localhost: "closed" }),
    },
  },
  naming: {
    metadata: () => ({ authorization_response_iss_parameter_supported: true }),
    gates: { naming: {} },
  },
  pushing: {
    metadata: ({ issuer }) => ({ pushed_authorization_request_endpoint: new URL(PUSHED, issuer).href }),
    gates: { pushing: { provider: { timeout: `${TIMEOUT}ms` }, callback: { pushed_authorization: true } } },
  },
};

let upstream;
let envoy;
const providers = {};

before(async () => {
  upstream = await startUpstream();
  for (const [name, { metadata }] of Object.entries(PROVIDERS)) {
    providers[name] = await startProvider({ keys: publicKeys("RS256") });
    Object.assign(providers[name].metadata, metadata?.(providers[name]));
  }
  const clusters = Object.entries(providers).map(([name, { port }]) => [name, port]);
  envoy = await startEnvoy({
    logLevel: "debug",
    listeners: Object.entries(PROVIDERS).flatMap(([name, { gates }]) =>
      Object.entries(gates).map(([gate, changes]) => ({ name: gate, config: configuration(name, changes) }))),
    // Nobody listens on port 1.
    clusters: { app: upstream.port, ...Object.fromEntries(clusters), empty: { type: "STATIC" }, closed: 1 },
  });
});
after(async () => {
  await envoy?.stop();
  await Promise.all([upstream, ...Object.values(providers)].map((server) => server?.stop()));
});

function configuration(name, { provider, callback } = {}) {
  return discoveringGate(providers[name], {
    provider: { cluster: name, ...provider },
    client: { secret: CLIENT_SECRET },
    callback: { keys: [KEY], ...callback },
  });
}

/** The token endpoint is at another host than the rest, with a cluster of its own. */
function reaching(clusters) {
  return { provider: { cluster: { "127.0.0.1": "remote", ...clusters } } };
}

/** The provider in front of which a gate stands. */
function providerOf(gate) {
  const [name] = Object.entries(PROVIDERS).find(([, { gates }]) => gate in gates);
  return providers[name];
}

/** Somebody who is back from the provider, but has not said so yet: `callback` is the address that they come with. */
async function returning({ gate = "gate", claims = {}, token, parameters = {} } = {}) {
  const provider = providerOf(gate);
  const person = new Person(envoy, gate);
  const [answer] = await person.visit("/salary", { until: () => true });
  const { state, nonce } = stepUp(answer);
  const code = randomBytes(24).toString("base64url");
  provider.grants.set(code, token ?? providerToken(provider, { claims: { nonce, ...claims } }));
  return { person, callback: `/callback?${new URLSearchParams({ code, state, ...parameters })}` };
}

/** An explained answer that sets nothing. */
function assertRefused(answer, status, reason, detail = /./) {
  assert.equal(`${answer.status} ${answer.reason}`, `${status} ${reason}`);
  assert.equal(answer.header("cache-control"), "no-store");
  assert.match(answer.header("content-type"), /^application\/problem\+json/);
  assert.equal(answer.json().reason, reason);
  assert.match(answer.json().detail, detail);
  assert.ok(answer.all("set-cookie").every((cookie) => cookie.includes("Max-Age=0")), "nothing is set");
}

/** A good login passes, and what holds after everything holds. */
async function assertWell(gate = "gate") {
  const { person, callback } = await returning({ gate });
  const [completed, page] = await person.visit(callback);
  assert.equal(`${completed.status} ${completed.reason}`, "302 login_completed");
  assert.equal(`${page.status} ${page.reason} ${page.url}`, `200 satisfied ${ORIGIN}/salary`);
  await assertHealthy(envoy, gate, upstream, person.cookies().get("id_token"));
}

describe("the token endpoint", () => {
  const UNAVAILABLE = /: the token endpoint gave no answer/;
  const refusal = (error) => new RegExp(`: the token endpoint answered \`${error}\``);
  const unusable = (why) => new RegExp(`: the token endpoint's answer cannot be used: ${why}`);
  const twice = (response, text) => provide.document(text.replace("{", '{"token_type":"Bearer",'))(response);
  const badGateway = (response) => response.writeHead(502, { "content-type": "text/html" }).end("<h1>Bad gateway</h1>");
  const nothing = (response) => response.writeHead(204).end();

  /** What it does; what the answer says of that; how the fetch is counted. */
  const faults = {
    "stays silent": [provide.silent, /\(timeout\)/, "(timeout|status_504)", { gate: "hasty" }],
    "answers byte by byte": [provide.trickle(50), UNAVAILABLE, "reset", { gate: "hasty" }],
    "answers without end": [provide.endless(), UNAVAILABLE, "reset", { gate: "hasty" }],
    "answers without end, slowly": [provide.endless(50), UNAVAILABLE, "reset", { gate: "hasty" }],
    "resets before an answer": [provide.resetAtOnce, UNAVAILABLE, "status_503"],
    "resets within its answer": [provide.reset, UNAVAILABLE, "reset"],
    "answers too long": [provide.huge(MAX_REPLY_BYTES), unusable("too long"), "too_large"],
    "answers 400 invalid_grant": [
      provide.oauthError(400, "invalid_grant"), /used before or has expired/, "invalid_grant", { status: 400 },
    ],
    ...Object.fromEntries([
      "invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
    ].map((error) => [`answers 400 ${error}`, [provide.oauthError(400, error), refusal(error), error]])),
    "answers 401 invalid_client": [provide.oauthError(401, "invalid_client"), refusal("invalid_client"), "invalid_client"],
    "answers 400 with an error of its own": [provide.oauthError(400, "<b>"), unusable("a status"), "status_400"],
    "answers 400 without a reason": [provide.status(400), unusable("a status"), "status_400"],
    "answers 401 without a reason": [provide.status(401), unusable("a status"), "status_401"],
    "answers 403": [provide.oauthError(403, "invalid_grant"), unusable("a status"), "status_403"],
    "answers 404": [provide.status(404), unusable("a status"), "status_404"],
    "answers 500": [provide.status(500), UNAVAILABLE, "status_500"],
    "answers 502 with a page": [badGateway, UNAVAILABLE, "status_502"],
    "answers 503": [provide.status(503, { "retry-after": "1" }), UNAVAILABLE, "status_503"],
    "leads elsewhere": [provide.redirect("/elsewhere"), unusable("a status"), "status_302"],
    "answers 204": [nothing, unusable("a status"), "status_204"],
    "answers with nothing": [provide.empty, unusable("no strict JSON"), "malformed"],
    "answers with a page": [provide.html, unusable("no strict JSON"), "malformed"],
    "answers with half of it": [provide.truncated, unusable("no strict JSON"), "malformed"],
    "answers with a list": [provide.document("[]"), unusable("no strict JSON"), "malformed"],
    "answers with bytes": [provide.binary, unusable("no strict JSON"), "malformed"],
    "answers compressed": [provide.gzip, unusable("no strict JSON"), "malformed"],
    "says one thing twice": [twice, unusable("no strict JSON"), "malformed"],
    "issues no ID Token": [provide.changed({ id_token: undefined }), unusable("no `id_token`"), "malformed"],
    "issues no text for an ID Token": [provide.changed({ id_token: ["a.b.c"] }), unusable("no `id_token`"), "malformed"],
    "issues another type of token": [provide.changed({ token_type: "DPoP" }), unusable("`token_type`"), "malformed"],
    "issues no type of token": [provide.changed({ token_type: undefined }), unusable("`token_type`"), "malformed"],
  };
  for (const [what, [behaviour, detail, result, { gate = "gate", status = 503 } = {}]] of Object.entries(faults)) {
    test(what, async () => {
      const { plain } = providers;
      const { person, callback } = await returning({ gate });
      const kind = status === 400 ? "bad_request" : "unavailable";
      const counters = [decisions(kind, "token_exchange_failed"), fetches("token", result)];
      const counts = async () => [plain.count(TOKEN), ...await Promise.all(counters.map((name) => envoy.sum(name)))];
      const earlier = await counts();
      plain.answers(TOKEN, behaviour);
      const answer = await person.open(callback, { headers: SCRIPT });
      assertRefused(answer, status, "token_exchange_failed", detail);
      assert.equal(answer.header("retry-after"), status === 503 ? "5" : undefined);
      assert.deepEqual(person.cookies().names().filter((name) => /token|_tx_/.test(name)), [], "the login is over");
      assertRefused(await person.open(callback, { headers: SCRIPT }), 400, "transaction_missing");
      assert.deepEqual(await counts(), earlier.map((count) => count + 1), "one request, one fetch, one decision");
      plain.answers(TOKEN, provide.normal);
      await assertWell();
      assert.equal(plain.count(TOKEN), earlier[0] + 2, "nothing is tried again");
      assert.equal(plain.count("/elsewhere"), 0);
    });
  }

  const oddities = {
    "a type of token in odd case": provide.changed({ token_type: "bEARER" }),
    "members that nobody knows": provide.changed({ "": { deep: [null] }, refresh_token: "x".repeat(10_000) }),
    "exactly the longest answer": (response, text) => provide.huge(MAX_REPLY_BYTES - text.length)(response, text),
  };
  for (const [what, behaviour] of Object.entries(oddities)) {
    test(`may have ${what}`, async () => {
      providers.plain.answers(TOKEN, behaviour);
      await assertWell();
      providers.plain.answers(TOKEN, provide.normal);
    });
  }

  test("refuses connections", async () => {
    const { plain } = providers;
    const { person, callback } = await returning();
    const exchanged = plain.count(TOKEN);
    await plain.down();
    assertRefused(await person.open(callback, { headers: SCRIPT }), 503, "token_exchange_failed", UNAVAILABLE);
    await plain.up();
    await assertWell();
    assert.equal(plain.count(TOKEN), exchanged + 1);
  });

  test("fails: a browser gets a page that explains it and leads back", async () => {
    const { plain } = providers;
    plain.answers(TOKEN, provide.oauthError(400, "invalid_grant"));
    const { person, callback } = await returning();
    const answer = await person.open(callback);
    assert.equal(`${answer.status} ${answer.reason}`, "400 token_exchange_failed");
    assert.match(answer.header("content-type"), /^text\/html/);
    assert.match(answer.text(), /used before or has expired/);
    assert.match(answer.text(), /href="\/salary"/);
    plain.answers(TOKEN, provide.normal);
    const [again] = await person.visit("/salary", { until: () => true });
    assert.equal(`${again.status} ${again.reason}`, "302 token_missing");
  });

  test("issues a token that proves nothing", async () => {
    const now = Math.floor(Date.now() / 1000);
    const minted = (options) => ({ token: providerToken(providers.plain, options) });
    const foreign = { ...signingKey("RS256", "other"), kid: signingKey().kid };
    for (const [reason, options] of [
      ["nonce_mismatch", { claims: { nonce: "another" } }],
      ["nonce_mismatch", { claims: { nonce: undefined } }],
      ["nonce_mismatch", { claims: { nonce: ["list"] } }],
      ["issuer_mismatch", { claims: { iss: "https://evil.example/" } }],
      ["audience_mismatch", { claims: { aud: "another" } }],
      ["token_expired", { claims: { iat: now - 7200, exp: now - 3600 } }],
      ["token_not_yet_valid", { claims: { iat: now + 3600, exp: now + 7200 } }],
      ["token_malformed", { token: "junk" }],
      ["token_malformed", { claims: { padding: "x".repeat(100_000) } }],
      ["signature_invalid", minted({ key: foreign })],
      ["signature_invalid", { token: tampered(minted().token) }],
      ["algorithm_not_allowed", minted({ header: { alg: "none" } })],
      ["algorithm_not_allowed", { token: mint({ secret: CLIENT_SECRET, alg: "HS256" }) }],
      ["key_unknown", minted({ header: { kid: "unknown" } })],
    ]) {
      const { person, callback } = await returning(options);
      assertRefused(await person.open(callback, { headers: SCRIPT }), 403, reason);
    }
    await assertWell();
  });

  test("is asked once, although the client leaves meanwhile", async () => {
    const { plain } = providers;
    for (const behaviour of [provide.normal, provide.status(500), provide.resetAtOnce]) {
      const { person, callback } = await returning();
      const exchanged = plain.count(TOKEN);
      const held = plain.holds(TOKEN, behaviour);
      const connection = await sends(person, callback);
      await plain.requested(TOKEN, exchanged + 1);
      connection.reset();
      await allGone();
      held.release();
      plain.answers(TOKEN, provide.normal);
      await assertWell();
      assert.equal(plain.count(TOKEN), exchanged + 2);
    }
  });

  test("is asked no more than once for each of many clients that leave at once", async () => {
    const { plain } = providers;
    const all = await Promise.all(Array.from({ length: 50 }, () => returning()));
    const exchanged = plain.count(TOKEN);
    await Promise.all(all.map(async ({ person, callback }) => {
      const connection = await sends(person, callback);
      await turn();
      connection.reset();
    }));
    await allGone();
    await assertWell();
    assert.ok(plain.count(TOKEN) <= exchanged + all.length + 1);
  });

  for (const [what, behaviour, expected] of [
    ["all succeed", provide.normal, "302 login_completed"],
    ["all fail", provide.status(500), "503 token_exchange_failed"],
  ]) {
    test(`200 logins end at once, and ${what}: each gets its own answer`, async () => {
      const { plain } = providers;
      const all = await Promise.all(Array.from({ length: 200 }, (_, at) => returning({ claims: { sub: `user-${at}` } })));
      const exchanged = plain.count(TOKEN);
      const held = plain.holds(TOKEN, behaviour);
      const asked = all.map(({ person, callback }) => person.open(callback, { headers: SCRIPT }));
      await plain.requested(TOKEN, exchanged + all.length);
      held.release();
      for (const [at, { status, reason }] of (await Promise.all(asked)).entries()) {
        assert.equal(`${status} ${reason}`, expected);
        const token = all[at].person.cookies().get("id_token");
        const subject = token && JSON.parse(Buffer.from(token.split(".")[1], "base64url")).sub;
        assert.equal(subject, status === 302 ? `user-${at}` : undefined);
      }
      plain.answers(TOKEN, provide.normal);
      await assertWell();
      assert.equal(plain.count(TOKEN), exchanged + all.length + 1);
    });
  }

  for (const [what, document] of [["metadata", METADATA], ["keys", KEYS]]) {
    test(`and its answer wait for the ${what} that a new gate does not have yet`, async (t) => {
      const { plain } = providers;
      const { person, callback } = await returning();
      const held = plain.holds(document);
      const late = await startEnvoy({
        listeners: [{ name: "late", config: configuration("plain") }],
        clusters: { app: upstream.port, plain: plain.port },
      });
      t.after(() => late.stop());
      person.turnsTo(late, "late");
      const exchanged = plain.count(TOKEN);
      const answers = person.visit(callback);
      if (document === METADATA) await late.until("^http\\.late\\.downstream_rq_active$");
      else await plain.requested(TOKEN, exchanged + 1);
      held.release();
      const [completed, page] = await answers;
      assert.equal(`${completed.reason} ${page.reason}`, "login_completed satisfied");
      assert.equal(plain.count(TOKEN), exchanged + 1);
    });
  }
});

describe("a token endpoint that Envoy cannot reach: the cluster of its host", () => {
  for (const [what, gate, message] of [
    ["has no name", "unnamed", /names no cluster for `localhost`/],
    ["is unknown to Envoy", "unknown", /no call to the cluster `nowhere`: unknown, its name not resolved, or no healthy host/],
    ["is empty", "empty", /token request to http:\/\/localhost/],
    ["leads to a closed port", "closed", /token request to http:\/\/localhost/],
  ]) {
    test(what, async () => {
      const { remote } = providers;
      const { person, callback } = await returning({ gate });
      assertRefused(await person.open(callback, { headers: SCRIPT }), 503, "token_exchange_failed", /gave no answer/);
      await envoy.logged(message);
      await assertHealthy(envoy, gate, upstream, providerToken(remote));
      assert.equal(remote.count(TOKEN), 0);
    });
  }
});

describe("the provider's answer", () => {
  /** An answer with other parameters, of which `undefined` removes one and a list repeats one. */
  const returns = async (changes, { gate = "gate", ...options } = {}) => {
    const { person, callback } = await returning({ gate });
    const url = new URL(callback, ORIGIN);
    for (const [name, value] of Object.entries(changes)) {
      url.searchParams.delete(name);
      for (const one of [value].flat()) if (one !== undefined) url.searchParams.append(name, one);
    }
    const exchanged = providerOf(gate).count(TOKEN);
    const answer = await person.open(url, { headers: SCRIPT, ...options });
    assert.equal(providerOf(gate).count(TOKEN), exchanged, "no code is exchanged");
    return answer;
  };

  const error = (value) => ({ code: undefined, error: value });
  const STATE = "AAAAAAAAAAAAAAAAAAAAAA";
  for (const [what, changes, status, reason] of [
    ["access_denied", error("access_denied"), 403, "authorization_denied"],
    ["login_required", error("login_required"), 403, "login_required"],
    ["interaction_required", error("interaction_required"), 403, "login_required"],
    ["unmet_authentication_requirements", error("unmet_authentication_requirements"), 403, "step_up_failed"],
    ["server_error", error("server_error"), 503, "provider_error"],
    ["an error in no standard", error("<script>alert(1)</script>"), 503, "provider_error"],
    ["two codes", { code: ["a", "b"] }, 400, "callback_malformed"],
    ["two states", { state: [STATE, STATE] }, 400, "callback_malformed"],
    ["two issuers", { iss: ["a", "b"] }, 400, "callback_malformed"],
    ["an empty code", { code: "" }, 400, "callback_malformed"],
    ["a code without end", { code: "x".repeat(10_000) }, 400, "callback_malformed"],
    ["a code and an error", { error: "access_denied" }, 400, "callback_malformed"],
    ["neither code nor error", { code: undefined }, 400, "callback_malformed"],
    ["no state", { state: undefined }, 400, "callback_malformed"],
    ["a state that is none", { state: "../../salary" }, 400, "callback_malformed"],
    ["another state", { state: STATE }, 400, "transaction_missing"],
    ["another issuer", { iss: "https://evil.example/" }, 400, "response_issuer_mismatch"],
  ]) {
    test(what, async () => {
      const answer = await returns(changes);
      assertRefused(answer, status, reason);
      assert.doesNotMatch(answer.text(), /alert/);
    });
  }

  test("by another method", async () => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      assertRefused(await returns({}, { method }), 400, "callback_malformed");
    }
    assert.equal((await returns({}, { method: "HEAD" })).status, 400);
  });

  test("without its issuer, or with another one, where the provider says that it names it", async () => {
    const { issuer } = providers.naming;
    for (const iss of [undefined, "", issuer.slice(0, -1), "https://evil.example/"]) {
      for (const changes of [{ iss }, { iss, ...error("access_denied") }]) {
        assertRefused(await returns(changes, { gate: "naming" }), 400, "response_issuer_mismatch");
      }
    }
    const { person, callback } = await returning({ gate: "naming", parameters: { iss: issuer } });
    const [completed, page] = await person.visit(callback);
    assert.equal(`${completed.reason} ${page.reason}`, "login_completed satisfied");
  });

  test("whatever it was, the next one is taken", () => assertWell());
});

describe("a pushed authorization request", () => {
  for (const [what, behaviour, result] of [
    ["is refused", provide.oauthError(400, "invalid_request"), "invalid_request"],
    ["is refused for the client", provide.oauthError(401, "invalid_client"), "invalid_client"],
    ["fails", provide.status(500), "status_500"],
    ["gets no answer", provide.silent, "(timeout|status_504)"],
    ["is reset", provide.resetAtOnce, "status_503"],
    ["gets a page", provide.html, "malformed"],
    ["gets no reference", provide.changed({ request_uri: undefined }), "malformed"],
    ["gets an empty reference", provide.changed({ request_uri: "" }), "malformed"],
    ["gets too long an answer", provide.huge(MAX_REPLY_BYTES), "too_large"],
  ]) {
    test(what, async () => {
      const { pushing } = providers;
      const counts = async () => [pushing.count(PUSHED), await envoy.sum(fetches("pushed_authorization", result))];
      const earlier = await counts();
      pushing.answers(PUSHED, behaviour);
      const person = new Person(envoy, "pushing");
      const answer = await person.open("/salary");
      assert.equal(`${answer.status} ${answer.reason}`, "503 pushed_authorization_failed");
      assert.equal(answer.header("cache-control"), "no-store");
      assert.match(answer.text(), /href="\/salary"/);
      assert.deepEqual(person.cookies().names(), []);
      assert.deepEqual(await counts(), earlier.map((count) => count + 1));
      pushing.answers(PUSHED, provide.normal);
      const [passes] = await person.visit("/salary", { until: () => true });
      assert.deepEqual(stepUp(passes), { client_id: CLIENT_ID, request_uri: "urn:example:pushed" });
      await assertHealthy(envoy, "pushing", upstream, providerToken(pushing));
      assert.equal(pushing.count(PUSHED), earlier[0] + 2, "nothing is tried again");
    });
  }
});

test("no secret stands in the log or among the counters, and no gate has trapped", async () => {
  const all = Object.values(providers);
  const codes = all.flatMap(({ grants }) => [...grants.keys()]);
  const posted = all.flatMap(({ posts }) =>
    posts.flatMap(({ form, authorization }) => [form.code_verifier, form.nonce, form.code_challenge, authorization]));
  assert.ok(codes.length > 500 && posted.length > 500);
  await assertKept(envoy, [KEY, CLIENT_SECRET, ...codes, ...posted.filter(Boolean)]);
  envoy.assertNoTrap();
});

/** Sends a navigation, and does not wait for its answer. */
async function sends(person, path) {
  const connection = await connect(person.envoy.port(person.listener));
  const { host } = new URL(ORIGIN);
  connection.request({ path, host, headers: [...NAVIGATION, ...person.cookies().headers()] }).catch(() => {});
  return connection;
}

async function allGone() {
  const active = "^http\\.gate\\.downstream_rq_active$";
  await eventually(10_000, "all requests are gone", async () => (await envoy.sum(active)) === 0);
}
