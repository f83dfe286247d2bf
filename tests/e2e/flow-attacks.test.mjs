// Attacks on the login that the gate completes, in real Envoy with a stub provider. What they are made of is that of
// tests/flow_attacks.rs; here, addresses are resolved as browsers do.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { startEnvoy } from "./support/envoy.mjs";
import { assertHealthy, discoveringGate, NAVIGATION, providerToken, REDIRECT_URI } from "./support/gate.mjs";
import { connect, CookieJar } from "./support/http.mjs";
import { ORIGIN, Person } from "./support/person.mjs";
import { startProvider, TOKEN } from "./support/provider.mjs";
import { publicKeys, signingKey } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const CORPUS = JSON.parse(readFileSync(new URL("../vectors/attacks.json", import.meta.url)));
const TARGETS = Object.values(CORPUS.targets).flat();
const HOSTS = Object.values(CORPUS.hosts).flat();

const HOST = new URL(ORIGIN).host;
const START = `${REDIRECT_URI}?step_up=`;
const TRANSACTION = "__Host-stepgate_tx_";
const STATE = "A".repeat(22);
const SCRIPT = [["accept", "application/json"], ["sec-fetch-mode", "cors"]];
const TRIED_AT_ONCE = 16;

let upstream;
let provider;
let envoy;

before(async () => {
  upstream = await startUpstream();
  provider = await startProvider({ keys: publicKeys("RS256") });
  provider.metadata = {
    authorization_response_iss_parameter_supported: true,
    end_session_endpoint: `${provider.issuer}end`,
  };
  const gate = (name, changes) => ({
    name,
    config: discoveringGate(provider, {
      client: { secret: randomBytes(24).toString("base64url") },
      callback: { keys: [randomBytes(32).toString("base64")], logout_path: "/logout", ...changes?.callback },
      forward: { headers: { "x-user-id": "sub", "x-groups": "groups" } },
      rules: [{ paths: ["/**"], require: {} }, { paths: ["/salary/**"] }],
      token: { cookie: "id_token", ...changes?.token },
    }),
  });
  envoy = await startEnvoy({
    logLevel: "debug",
    listeners: [
      gate("alone"),
      gate("domain", { callback: { cookie: { domain: "example.com" } } }),
      gate("prefixed", { token: { cookie: "__Host-id_token" } }),
    ],
    clusters: { app: upstream.port, idp: provider.port },
  });
});
after(async () => {
  await envoy?.stop();
  await Promise.all([upstream?.stop(), provider?.stop()]);
});

/** The provider issues a code for what it is asked. */
function issued({ nonce }, claims = {}) {
  const code = randomBytes(24).toString("base64url");
  provider.grants.set(code, providerToken(provider, { claims: { nonce, ...claims } }));
  return code;
}

function callback(state, code, iss = provider.issuer) {
  return `/callback?${new URLSearchParams({ state, code, iss })}`;
}

/** Everything that an answer can lead to. */
function links(answer) {
  const text = answer.text();
  const hrefs = [...text.matchAll(/href="([^"]*)"/g)].map(([, href]) =>
    href.replaceAll("&#39;", "'").replaceAll("&quot;", '"').replaceAll("&amp;", "&"));
  const isProblem = answer.header("content-type") === "application/problem+json";
  return [...answer.all("location"), ...(isProblem ? [answer.json().step_up_url] : hrefs)].filter((link) => link !== undefined);
}

/** The origin that a browser has for this host, where it can have one. */
function originOf(host) {
  try {
    const { hostname, origin } = new URL(`https://${host}/`);
    return host.toLowerCase().startsWith(hostname) ? origin : ORIGIN;
  } catch {
    return ORIGIN;
  }
}

/** The provider, the callback's own addresses, and the origin that the person came from, if the cookie gets there. */
function assertLeadsHome(link, origin, domain) {
  if (!URL.canParse(link, origin)) return; // nowhere
  const url = new URL(link, origin);
  if (url.origin === new URL(provider.issuer).origin) {
    assert.match(url.pathname, /^\/(authorize|end)$/);
    const own = { redirect_uri: REDIRECT_URI, post_logout_redirect_uri: `${ORIGIN}/` };
    for (const [name, expected] of Object.entries(own)) {
      assert.ok(url.searchParams.getAll(name).every((value) => value === expected), `${name} in ${link}`);
    }
    return;
  }
  const isOfDomain = domain && /(^|\.)example\.com\.?$/.test(url.hostname) && url.origin === origin;
  const isRelative = /^\/(?![/\\])/.test(link) && url.origin === origin;
  assert.ok(link.startsWith(START) || link === `${ORIGIN}/` || isOfDomain || isRelative, `leads to ${JSON.stringify(link)}`);
}

/** Follows a login to its end; every answer is looked at. Gives the last one. */
async function follow(session, listener, message) {
  const origin = originOf(message.host?.trim() ?? HOST);
  const jar = new CookieJar();
  let next = message;
  for (let step = 0; ; step += 1) {
    if (!session.connection?.open) session.connection = await connect(envoy.port(listener));
    const headers = [...(next.headers ?? NAVIGATION), ...jar.headers()].map(([name, value]) => [name, Buffer.from(value)]);
    const { method, host = HOST, path } = next;
    const answer = await session.connection.request({ method, host: Buffer.from(host), path: Buffer.from(path), headers });
    if (answer.header("connection") === "close") session.connection.close();
    if (answer.status === 400 && answer.all("content-type").every((type) => type === "text/plain")) return answer; // Envoy's own
    jar.take(answer);
    assert.equal(answer.header("x-evil"), undefined);
    const all = links(answer);
    for (const link of all) assertLeadsHome(link, origin, listener === "domain");
    const asked = all.find((link) => link.startsWith(`${provider.issuer}authorize`));
    const start = all.find((link) => link.startsWith(START));
    if (step === 4 || (!asked && !start)) return answer;
    const { state, nonce } = asked ? Object.fromEntries(new URL(asked).searchParams) : {};
    next = { path: asked ? callback(state, issued({ nonce }, { amr: ["mfa"] })) : start.slice(ORIGIN.length) };
  }
}

/** Tries all of them, several at once; gives the last answer to each. */
async function tryAll(attempts) {
  const left = attempts.entries();
  const ends = [];
  await Promise.all(Array.from({ length: TRIED_AT_ONCE }, async () => {
    const sessions = {};
    for (const [at, [listener, message]] of left) {
      sessions[listener] ??= {};
      try {
        ends[at] = await follow(sessions[listener], listener, message);
      } catch (cause) {
        throw new Error(`${listener}, ${JSON.stringify(message)}: ${cause.message}`, { cause });
      }
    }
    Object.values(sessions).forEach(({ connection }) => connection?.close());
  }));
  return ends;
}

/** The answers that end a login well. */
function completed(answers) {
  return answers.filter((answer) => answer.status === 302 && /id_token=[^;]/.test(answer.header("set-cookie")));
}

describe("open redirects", () => {
  test("an address that leads elsewhere is noticed", () => {
    const foreign = TARGETS.filter((target) => URL.canParse(target, ORIGIN) && new URL(target, ORIGIN).origin !== ORIGIN);
    assert.ok(foreign.length > 100, `${foreign.length}`);
    for (const target of foreign) assert.throws(() => assertLeadsHome(target, ORIGIN, true), target);
  });

  test("no address leads elsewhere", async () => {
    const attempts = TARGETS.flatMap((target) => {
      const encoded = encodeURIComponent(target);
      const junk = ["state", "code", "iss", "redirect_uri", "return_to"].map((name) => `${name}=${encoded}`).join("&");
      const referred = (host, value) => ({ host, path: "/salary", headers: [...SCRIPT, ["referer", value]] });
      return [
        ["domain", { host: "pay.example.com", path: target }],
        ["alone", { path: target }],
        ["alone", referred(HOST, target)],
        ["domain", referred("pay.example.com", `https://pay.example.com${target}`)],
        ["alone", { method: "POST", path: `/salary?return_to=${encoded}`, headers: [...NAVIGATION, ["referer", ORIGIN + target]] }],
        ["alone", { path: `/callback?step_up=${encoded}` }],
        ["alone", { path: `/callback?${junk}` }],
        ["alone", { path: `/logout?post_logout_redirect_uri=${encoded}` }],
      ];
    });
    const ends = await tryAll(attempts);
    assert.ok(completed(ends).length > 3 * TARGETS.length, `${completed(ends).length} logins were tried to their end`);
  });

  test("no host leads elsewhere", async () => {
    const attempts = HOSTS.flatMap((host) => ["alone", "domain"].flatMap((listener) => [
      [listener, { host, path: "/salary?a=//b" }],
      [listener, { host, path: "/salary", headers: SCRIPT }],
      [listener, { path: "/salary", headers: [...NAVIGATION, ["x-forwarded-host", host], ["forwarded", `host=${host}`]] }],
    ]));
    const ends = await tryAll(attempts);
    const origins = completed(ends).map((answer) => answer.header("location").split("/salary")[0]);
    assert.ok(new Set(origins).size > 8 && origins.includes("https://pay.example.com:8443"), `${[...new Set(origins)]}`);
  });
});

describe("header injection", () => {
  test("nothing from outside breaks a field", async () => {
    const attempts = CORPUS.breakers.flatMap((breaker) => [breaker, `a${breaker}b`, STATE + breaker]).flatMap((value) => {
      const encoded = encodeURIComponent(value);
      const cookies = `id_token.0${value}=x; ${TRANSACTION}${value}=x; id_token=${value}`;
      return [
        ...["state", "step_up", `state=${STATE}&code`, `state=${STATE}&error`, `state=${STATE}&code=x&iss`].map((name) =>
          ["alone", { path: `/callback?${name}=${encoded}` }]),
        ["alone", { path: `/salary/${value}` }],
        ["alone", { path: "/salary", headers: [...SCRIPT, ["referer", `${ORIGIN}/${value}`]] }],
        ["domain", { host: `${value}.example.com`, path: "/salary" }],
        ...["/salary", "/logout"].map((path) => ["alone", { path, headers: [...NAVIGATION, ["cookie", cookies]] }]),
      ];
    });
    for (const answer of await tryAll(attempts)) {
      for (const cookie of answer.all("set-cookie")) {
        assert.match(cookie, /^(id_token(\.\d+)?|__Host-stepgate_(tx_[\w-]{22}|attempts))=[\w.-]*(; [\w-]+(=[\w./-]+)?)+$/);
      }
    }
  });

  test("nor does a claim", async () => {
    for (const breaker of CORPUS.breakers) {
      const person = new Person(envoy, "alone");
      const { asked } = await setsOut(person, "/claims");
      await person.visit(callback(asked.state, issued(asked, { sub: `a${breaker}b`, groups: [breaker] })));
    }
    const seen = upstream.at("/claims");
    assert.equal(seen.length, CORPUS.breakers.length);
    for (const { headers } of seen) assert.ok(headers.every(([name]) => name !== "x-evil"));
  });
});

/** Sets out for a page; gives what the provider is asked, and the login's cookie. */
async function setsOut(person, page) {
  const [answer] = await person.visit(page, { until: () => true });
  const asked = Object.fromEntries(new URL(answer.header("location")).searchParams);
  return { asked, name: `${TRANSACTION}${asked.state}` };
}

/** The answer to a request with exactly these cookies. */
function opens(listener, target, cookies) {
  const headers = [...NAVIGATION, ...cookies.map((cookie) => ["cookie", Buffer.from(cookie)])];
  return new Person(envoy, listener).open(target, { headers });
}

function assertAnswer({ status, reason }, expected) {
  assert.equal(`${status} ${reason}`, expected);
}

describe("cookie tossing", () => {
  test("two tokens of one name are nobody's", async () => {
    const [ada, mallory] = ["ada", "mallory"].map((sub) => providerToken(provider, { claims: { sub } }));
    const own = `id_token=${ada}`;
    assertAnswer(await opens("alone", "/salary", [own, own]), "200 satisfied");
    const half = mallory.length / 2;
    const chunks = [`id_token.0=${mallory.slice(0, half)}`, `id_token.1=${mallory.slice(half)}`].join("; ");
    for (const tossed of [`id_token=${mallory}`, `id_token.0=${mallory}`, `id_token.00=${mallory}`, chunks, "id_token=x"]) {
      for (const pair of [[own, tossed], [tossed, own]]) {
        for (const cookies of [pair, [pair.join("; ")], [`theme=dark; ${pair.join(";")}`]]) {
          const { status, reason } = await opens("alone", "/salary", cookies);
          assert.match(`${status} ${reason}`, /^302 token_(ambiguous|malformed)$/, tossed);
        }
      }
    }
  });

  test("no other name is taken for one with a prefix", async () => {
    const token = providerToken(provider);
    assertAnswer(await opens("prefixed", "/salary", [`__Host-id_token=${token}`]), "200 satisfied");
    const mallory = new Person(envoy, "prefixed");
    const { asked, name } = await setsOut(mallory, "/salary");
    const back = callback(asked.state, issued(asked));
    const exchanged = provider.count(TOKEN);
    // Envoy itself refuses controls in a field.
    for (const form of CORPUS.names.filter((form) => !/[\0-\x1f]/.test(form))) {
      const of = (known) => form.replaceAll("{name}", known).replaceAll("{bare}", known.replace("__Host-", ""));
      assertAnswer(await opens("prefixed", "/salary", [`${of("__Host-id_token")}=${token}`]), "302 token_missing");
      assertAnswer(await opens("prefixed", back, [`${of(name)}=${mallory.cookies().get(name)}`]), "400 transaction_missing");
    }
    assert.equal(provider.count(TOKEN), exchanged);
  });
});

describe("answers that are another's", () => {
  test("a code is taken once, and in one browser", async () => {
    const ada = new Person(envoy, "alone");
    const { asked } = await setsOut(ada, "/salary");
    const back = callback(asked.state, issued(asked));
    const exchanged = provider.count(TOKEN);
    assertAnswer(await new Person(envoy, "alone").open(back), "400 transaction_missing");
    const mallory = new Person(envoy, "alone");
    await setsOut(mallory, "/salary");
    assertAnswer(await mallory.open(back), "400 transaction_missing");
    assert.equal(provider.count(TOKEN), exchanged);
    assertAnswer(await ada.open(back), "302 login_completed");
    assertAnswer(await ada.open(back), "400 transaction_missing");
    assert.equal(provider.count(TOKEN), exchanged + 1);
  });

  test("parts of two logins make none, though the provider takes any verifier", async () => {
    const tabs = new Person(envoy, "alone");
    const [weak, strong] = [await setsOut(tabs, "/"), await setsOut(tabs, "/salary")];
    assertAnswer(await tabs.open(callback(strong.asked.state, issued(weak.asked))), "403 nonce_mismatch");
    const [first, second] = [await setsOut(tabs, "/a"), await setsOut(tabs, "/b")];
    const jar = tabs.cookies();
    const values = [second, first].map(({ name }) => jar.get(name));
    [first, second].forEach(({ name }, at) => jar.set(name, values[at]));
    for (const { asked } of [first, second]) {
      assertAnswer(await tabs.open(callback(asked.state, issued(asked))), "400 transaction_missing");
    }
    assert.equal(jar.get("id_token"), undefined);
  });

  test("nobody is logged in as somebody else", async () => {
    const mallory = new Person(envoy, "alone");
    const his = await setsOut(mallory, "/");
    const ada = new Person(envoy, "alone");
    const hers = await setsOut(ada, "/");
    assertAnswer(await ada.open(callback(hers.asked.state, issued(hers.asked, { sub: "ada" }))), "302 login_completed");
    const token = ada.cookies().get("id_token");
    const back = callback(his.asked.state, issued(his.asked, { sub: "mallory" }));
    assertAnswer(await ada.open(back), "400 transaction_missing");
    ada.cookies().set(his.name, mallory.cookies().get(his.name));
    assertAnswer(await ada.open(back), "403 subject_mismatch");
    assert.equal(ada.cookies().get("id_token"), token);
  });

  test("another provider's answer is no answer", async () => {
    const evil = "https://evil.example/";
    const exchanged = provider.count(TOKEN);
    for (const iss of [evil, "", provider.issuer.slice(0, -1), `${provider.issuer}/`, `${provider.issuer} `]) {
      const ada = new Person(envoy, "alone");
      const { asked } = await setsOut(ada, "/salary");
      assertAnswer(await ada.open(callback(asked.state, issued(asked), iss)), "400 response_issuer_mismatch");
      assertAnswer(await ada.open(`/callback?state=${asked.state}&code=x`), "400 transaction_missing");
    }
    assert.equal(provider.count(TOKEN), exchanged, "no code is taken to the wrong provider");
    const key = { ...signingKey("RS256", "evil"), kid: signingKey().kid };
    for (const [options, reason] of [
      [{ claims: { iss: evil } }, "issuer_mismatch"],
      [{ claims: { aud: "another" } }, "audience_mismatch"],
      [{ key }, "signature_invalid"],
    ]) {
      const ada = new Person(envoy, "alone");
      const { asked } = await setsOut(ada, "/salary");
      const code = randomBytes(24).toString("base64url");
      provider.grants.set(code, providerToken(provider, { ...options, claims: { nonce: asked.nonce, ...options.claims } }));
      assertAnswer(await ada.open(callback(asked.state, code)), `403 ${reason}`);
      assert.deepEqual(ada.cookies().names(), []);
    }
  });
});

test("after all of it, every gate works", async () => {
  for (const name of ["alone", "domain"]) await assertHealthy(envoy, name, upstream, providerToken(provider));
});
