// The flow that the gate completes, with a real provider and real Envoy, newest and oldest: from a page of an app that has no
// login to the provider, to the token endpoint, and back to that page.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { startEnvoy } from "./support/envoy.mjs";
import { assertHealthy, assertKept, discoveringGate, MULTI_FACTOR, REDIRECT_URI } from "./support/gate.mjs";
import { startOidc } from "./support/oidc.mjs";
import { ORIGIN, Person } from "./support/person.mjs";
import { signingKey } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const [OLD, NEW] = [1, 2].map(() => randomBytes(32).toString("base64"));
const MAX_COOKIE_BYTES = 4_096;

const assertionKey = signingKey("ES256", "client");
const CLIENTS = {
  client_secret_basic: { id: 'basic +:%/&="~', secret: 's3cret +:%/&="~?' },
  client_secret_post: { id: "post", secret: "another s3cret &=" },
  private_key_jwt: { id: "assertion", secret: JSON.stringify(assertionKey.privateKey.export({ format: "jwk" })) },
  none: { id: "public" },
};
const POST = "client_secret_post";

describe("the flow", () => {
  let upstream;
  let oidc;
  let modest;
  const envoys = {};

  before(async () => {
    upstream = await startUpstream();
    oidc = await startOidc({ clients: Object.entries(CLIENTS).map(registered) });
    modest = await startOidc({ clients: [registered([POST, CLIENTS[POST]])], pushed: false });
    const gates = {
      ...Object.fromEntries(Object.keys(CLIENTS).map((method) => [method, gate({ method })])),
      rotated: gate({ callback: { keys: [NEW, OLD] } }),
      renewed: gate({ callback: { keys: [NEW] } }),
      pushed: gate({ callback: { pushed_authorization: true } }),
      modest: gate({ provider: modest, cluster: "modest", callback: { pushed_authorization: true } }),
      id_token_hint: gate({ callback: { hint: "id_token_hint" } }),
      login_hint: gate({ callback: { hint: "login_hint" } }),
      sealed: gate({ callback: { seal_token: true } }),
    };
    await Promise.all(["newest", "oldest"].map(async (version) => {
      envoys[version] = await startEnvoy({
        version,
        logLevel: "debug",
        listeners: Object.entries(gates).map(([name, config]) => ({ name, config })),
        clusters: { app: upstream.port, idp: oidc.port, modest: modest.port },
      });
    }));
  });
  after(async () => {
    await Promise.all(Object.values(envoys).map((envoy) => envoy.stop()));
    await Promise.all([oidc, modest, upstream].map((server) => server?.stop()));
  });

  const gate = ({ provider = oidc, cluster = "idp", method = POST, callback = {} }) => discoveringGate(provider, {
    provider: { cluster },
    client: { ...CLIENTS[method], authentication: method },
    callback: { keys: [OLD], logout_path: "/logout", ...callback },
    forward: { headers: { "x-user-id": "sub" }, strip_token: true },
    rules: [{ paths: ["/**"], require: {} }, { paths: ["/salary/**"] }],
  });

  for (const [version, otherVersion] of [["newest", "oldest"], ["oldest", "newest"]]) {
    describe(`${version} Envoy`, () => {
      let envoy;
      let other;

      before(() => {
        [envoy, other] = [envoys[version], envoys[otherVersion]];
      });

      /** Somebody whom the provider knows so. */
      const person = (listener, claims = { sub: "ada" }) => {
        oidc.person = claims;
        return new Person(envoy, listener);
      };
      const tokenRequests = (from) => oidc.at("token").slice(from);

      for (const [method, { id, secret }] of Object.entries(CLIENTS)) {
        test(`a login and a step-up, with ${method}`, async () => {
          const ada = person(method);
          const before = oidc.at("token").length;
          const login = await ada.visit("/news?a=1&b=%20/");
          assert.deepEqual(reasons(login), ["token_missing", "login_completed", "satisfied"]);
          assert.equal(login.at(-1).url, `${ORIGIN}/news?a=1&b=%20/`);
          assert.deepEqual(ada.cookies().names(), ["id_token"], "all else is cleared");
          const stepUp = await ada.visit("/salary/2026");
          assert.deepEqual(reasons(stepUp), ["amr_insufficient", "login_completed", "satisfied"]);
          assert.equal(stepUp.at(-1).url, `${ORIGIN}/salary/2026`);
          assert.deepEqual(reasons(await ada.visit("/salary/2027")), ["satisfied"]);
          assert.deepEqual(ada.cookies().names(), ["id_token"]);

          const sent = tokenRequests(before);
          assert.equal(sent.length, 2, "each code is exchanged once");
          for (const [at, answers] of [login, stepUp].entries()) {
            const asked = parameters(answers[1]);
            const { code, ...returned } = parameters(callbackOf(answers));
            assert.deepEqual(returned, { state: asked.state, iss: oidc.issuer });
            const { code_verifier: verifier, client_assertion: assertion, ...rest } = sent[at].params;
            assert.equal(asked.code_challenge, createHash("sha256").update(verifier).digest("base64url"));
            assert.deepEqual(rest, {
              grant_type: "authorization_code", code, redirect_uri: REDIRECT_URI, ...credentials(method, { id, secret }),
            });
            assert.equal(sent[at].authorization, method === "client_secret_basic" ? basic(id, secret) : "");
            assert.equal(assertion !== undefined, method === "private_key_jwt");
          }
          await assertHealthy(envoy, method, upstream, ada.cookies().get("id_token"));
        });
      }

      test("a client assertion is for the provider alone, short-lived, and new each time", async () => {
        const before = oidc.at("token").length;
        await person("private_key_jwt").visit("/news");
        await person("private_key_jwt").visit("/news");
        const [first, second] = tokenRequests(before).map(({ params }) => decoded(params.client_assertion));
        const { jti, iat, exp, ...claims } = first.claims;
        assert.equal(first.header.alg, "ES256");
        assert.deepEqual(claims, { iss: "assertion", sub: "assertion", aud: oidc.issuer });
        assert.equal(exp - iat, 60);
        assert.notEqual(jti, second.claims.jti);
      });

      test("cookies live as long as what they hold, out of reach of scripts", async () => {
        const answers = await person(POST).visit("/news");
        const { state } = parameters(answers[1]);
        const cookie = (answer, name) => answer.all("set-cookie").find((one) => one.startsWith(`${name}=`));
        const transaction = `__Host-stepgate_tx_${state}`;
        const [begun, ended] = [answers[0], callbackOf(answers)].map((answer) => cookie(answer, transaction));
        assert.match(begun, /=[\w-]+; Path=\/; Max-Age=600; HttpOnly; SameSite=Lax; Secure$/);
        assert.equal(ended, `${transaction}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure`);
        const [, token, maxAge] =
          /^id_token=(.+); Path=\/; Max-Age=(\d+); HttpOnly; SameSite=Lax; Secure$/.exec(cookie(callbackOf(answers), "id_token"));
        const left = decoded(token).claims.exp - Date.now() / 1000;
        assert.ok(Math.abs(maxAge - left) < 10, `${maxAge} s, ${left} s`);
      });

      test("the app learns who it is from the gate, and sees neither tokens nor logins under way", async () => {
        const ada = person(POST);
        const page = "/salary/headers";
        await ada.visit("/salary/begun", { until: () => true });
        await ada.visit(page);
        await ada.open(`${page}/forged`, { headers: [["x-user-id", "mallory"]] });
        for (const { headers } of [...upstream.at(page), ...upstream.at(`${page}/forged`)]) {
          assert.deepEqual(headers.filter(([name]) => name === "x-user-id"), [["x-user-id", "ada"]]);
          assert.doesNotMatch(JSON.stringify(headers), /eyJ|stepgate/);
        }
      });

      test("a script gets a link instead, which leads back to its page", async () => {
        const ada = person(POST);
        const headers = [["accept", "application/json"], ["sec-fetch-mode", "cors"], ["referer", `${ORIGIN}/salary/page?x=1`]];
        const answer = await ada.open("/salary/data", { headers });
        assert.equal(`${answer.status} ${answer.reason}`, "401 token_missing");
        assert.deepEqual(ada.cookies().names(), [], "many such requests leave nothing behind");
        const answers = await ada.visit(answer.json().step_up_url);
        assert.deepEqual(reasons(answers), ["token_missing", "login_completed", "satisfied"]);
        assert.equal(answers.at(-1).url, `${ORIGIN}/salary/page?x=1`);
      });

      test("it starts at one Envoy and finishes at another, and the token counts at both", async () => {
        const ada = person(POST);
        const callback = await upToCallback(ada, "/salary");
        ada.turnsTo(other, POST);
        assert.deepEqual(reasons(await ada.visit(callback)), ["login_completed", "satisfied"]);
        ada.turnsTo(envoy, POST);
        assert.deepEqual(reasons(await ada.visit("/salary")), ["satisfied"]);
      });

      test("it survives a new key that seals, as long as the old one opens", async () => {
        const ada = person(POST);
        const callback = await upToCallback(ada, "/news");
        const before = oidc.at("token").length;
        ada.turnsTo(other, "renewed");
        const [refused] = await ada.visit(callback);
        assert.equal(`${refused.status} ${refused.reason}`, "400 transaction_missing");
        assert.deepEqual(refused.all("set-cookie"), []);
        assert.equal(tokenRequests(before).length, 0);
        ada.turnsTo(other, "rotated");
        assert.deepEqual(reasons(await ada.visit(callback)), ["login_completed", "satisfied"]);
      });

      test("pushed: the browser carries a reference alone", async () => {
        const before = oidc.at("pushed_authorization_request").length;
        const answers = await person("pushed").visit("/salary");
        assert.deepEqual(reasons(answers), ["token_missing", "login_completed", "satisfied"]);
        const { client_id: id, request_uri: reference, ...rest } = parameters(answers[1]);
        assert.equal(id, CLIENTS[POST].id);
        assert.match(reference, /^urn:ietf:params:oauth:request_uri:/);
        assert.deepEqual(rest, {});
        const [{ params }, ...others] = oidc.at("pushed_authorization_request").slice(before);
        assert.deepEqual(others, []);
        const { state, nonce, code_challenge: challenge, ...asked } = params;
        assert.equal(state, parameters(callbackOf(answers)).state);
        assert.ok(nonce && challenge);
        assert.deepEqual(asked, {
          response_type: "code",
          redirect_uri: REDIRECT_URI,
          scope: "openid",
          acr_values: MULTI_FACTOR,
          code_challenge_method: "S256",
          ...credentials(POST, CLIENTS[POST]),
        });
      });

      test("pushed: not where the provider does not offer it", async () => {
        const answers = await person("modest").visit("/salary");
        assert.deepEqual(reasons(answers), ["token_missing", "login_completed", "satisfied"]);
        assert.equal(parameters(answers[1]).acr_values, MULTI_FACTOR);
      });

      const hints = { id_token_hint: (token) => token, login_hint: () => "ada+lovelace & co" };
      for (const [hint, expected] of Object.entries(hints)) {
        test(`the provider is told who is logged in, by ${hint}`, async (t) => {
          const ada = person(hint, { sub: "ada", preferred_username: "ada+lovelace & co" });
          const [, asked] = await ada.visit("/news");
          assert.equal(parameters(asked)[hint], undefined, "nobody is");
          const token = ada.cookies().get("id_token");
          const connections = await envoy.connections(hint);
          t.after(() => connections.forEach((connection) => connection.close()));
          for (const connection of connections) {
            await ada.open("/news", { connection }); // by now this worker has verified the token
            const answer = await ada.open("/salary", { connection });
            assert.equal(parameters({ url: answer.header("location") })[hint], expected(token));
          }
          const answers = await ada.visit("/salary");
          assert.deepEqual(reasons(answers), ["amr_insufficient", "login_completed", "satisfied"]);
        });
      }

      test("logout ends both sessions", async () => {
        const ada = person(POST);
        await ada.visit("/news");
        await ada.visit("/salary", { until: () => true });
        const token = ada.cookies().get("id_token");
        const answers = await ada.visit("/logout");
        assert.equal(answers[0].reason, "logged_out");
        assert.equal(answers[0].header("cache-control"), "no-store");
        assert.deepEqual(ada.cookies().names(), []);
        const asked = answers.at(-1);
        assert.equal(new URL(asked.url).pathname, "/session/end");
        assert.deepEqual(parameters(asked), {
          client_id: CLIENTS[POST].id, post_logout_redirect_uri: `${ORIGIN}/`, id_token_hint: token,
        });
        oidc.person = { sub: "bob" };
        const again = await ada.submit(asked, { logout: "yes" });
        assert.equal(again[1].url, `${ORIGIN}/`);
        assert.deepEqual(reasons(again), ["token_missing", "login_completed", "satisfied"]);
        assert.equal(decoded(ada.cookies().get("id_token")).claims.sub, "bob");
      });

      test("a sealed token says nothing to whoever reads the cookie, and the app learns who it is", async () => {
        const ada = person("sealed");
        assert.deepEqual(reasons(await ada.visit("/salary/sealed")), ["token_missing", "login_completed", "satisfied"]);
        const sealed = ada.cookies().get("id_token");
        assert.match(sealed, /^[\w-]+$/);
        assert.doesNotMatch(Buffer.from(sealed, "base64url").toString("latin1"), /eyJ|ada/);
        assert.deepEqual(reasons(await ada.visit("/salary/sealed")), ["satisfied"]);
        for (const { headers } of upstream.at("/salary/sealed")) {
          assert.ok(headers.some(([name, value]) => name === "x-user-id" && value === "ada"));
          assert.ok(!JSON.stringify(headers).includes(sealed));
        }

        const bob = person(POST, { sub: "bob" });
        await bob.visit("/salary");
        ada.cookies().set("id_token", bob.cookies().get("id_token"));
        assert.deepEqual(reasons(await ada.visit("/salary", { until: () => true })), ["token_malformed"], "a plain token");
        bob.cookies().set("id_token", sealed);
        assert.deepEqual(reasons(await bob.visit("/salary", { until: () => true })), ["token_malformed"]);
      });

      for (const listener of [POST, "sealed"]) {
        test(`a token that is too long for one cookie: ${listener}`, async () => {
          const [small, large] = [{ sub: "ada" }, { sub: "ada", groups: "x".repeat(5_000) }];
          const chunks = /^id_token\.\d$/;
          for (const [first, second] of [[small, large], [large, small]]) {
            const ada = person(listener, first);
            for (const [claims, page, reason] of [[first, "/news", "token_missing"], [second, "/salary", "amr_insufficient"]]) {
              oidc.person = claims;
              const answers = await ada.visit(page);
              assert.deepEqual(reasons(answers), [reason, "login_completed", "satisfied"]);
              assert.deepEqual(reasons(await ada.visit(page)), ["satisfied"]);
              const names = ada.cookies().names();
              if (claims === small) assert.deepEqual(names, ["id_token"]);
              else assert.ok(names.length > 1 && names.every((name) => chunks.test(name)), `${names}`);
              for (const cookie of callbackOf(answers).all("set-cookie")) {
                assert.ok(cookie.split(";")[0].length <= MAX_COOKIE_BYTES, "browsers keep it");
              }
            }
          }
        });
      }

      /** The login got no further, and the browser has no more than before. */
      const refused = (answers, person, reason, names = []) => {
        const answer = answers.at(-1);
        assert.equal(`${answer.status} ${answer.reason}`, `403 ${reason}`);
        assert.equal(answer.header("cache-control"), "no-store");
        assert.ok(answer.text().includes(reason));
        assert.ok(answer.all("set-cookie").every((cookie) => cookie.includes("Max-Age=0")), "nothing is set");
        assert.deepEqual(person.cookies().names().filter((name) => !name.includes("attempts")), names);
      };

      test("a nonce that somebody changed on the way", async () => {
        const ada = person(POST);
        const [answer] = await ada.visit("/news", { until: () => true });
        const asked = new URL(answer.header("location"));
        asked.searchParams.set("nonce", "AAAAAAAAAAAAAAAAAAAAAA");
        refused(await ada.visit(asked), ada, "nonce_mismatch");
      });

      test("a request for a second factor that somebody removed on the way: asked again", async () => {
        const ada = person(POST);
        const [answer] = await ada.visit("/salary", { until: () => true });
        const asked = new URL(answer.header("location"));
        asked.searchParams.delete("acr_values");
        const answers = await ada.visit(asked);
        assert.deepEqual(reasons(answers), ["amr_insufficient", "login_completed", "satisfied"]);
        assert.doesNotMatch(callbackOf(answers).header("set-cookie"), /id_token/);
      });

      test("somebody else at the step-up", async () => {
        const ada = person(POST);
        await ada.visit("/news");
        const token = ada.cookies().get("id_token");
        for (const name of ada.cookies(oidc.issuer).names()) ada.cookies(oidc.issuer).delete(name);
        oidc.person = { sub: "bob" };
        refused(await ada.visit("/salary"), ada, "subject_mismatch", ["id_token"]);
        assert.equal(ada.cookies().get("id_token"), token);
        assert.deepEqual(reasons(await ada.visit("/news")), ["satisfied"]);
      });

      test("somebody else in another tab", async () => {
        const ada = person(POST);
        const callback = await upToCallback(ada, "/news");
        for (const name of ada.cookies(oidc.issuer).names()) ada.cookies(oidc.issuer).delete(name);
        oidc.person = { sub: "bob" };
        assert.deepEqual(reasons(await ada.visit("/news")), ["token_missing", "login_completed", "satisfied"]);
        refused(await ada.visit(callback), ada, "subject_mismatch", ["id_token"]);
      });

      test("a callback that was used before", async () => {
        const ada = person(POST);
        const callback = await upToCallback(ada, "/news");
        const [transaction] = ada.cookies().names().filter((name) => name.includes("stepgate_tx"));
        const sealed = ada.cookies().get(transaction);
        const before = oidc.at("token").length;
        await ada.visit(callback);
        const [again] = await ada.visit(callback);
        assert.equal(`${again.status} ${again.reason}`, "400 transaction_missing");
        assert.equal(tokenRequests(before).length, 1);
        ada.cookies().set(transaction, sealed);
        const [kept] = await ada.visit(callback);
        assert.equal(`${kept.status} ${kept.reason}`, "400 token_exchange_failed");
        assert.match(kept.text(), /used before/);
      });

      test("somebody else's callback", async () => {
        const callback = await upToCallback(person(POST, { sub: "mallory" }), "/news");
        const before = oidc.at("token").length;
        const ada = person(POST);
        await ada.visit("/news", { until: () => true });
        const [answer] = await ada.visit(callback);
        assert.equal(`${answer.status} ${answer.reason}`, "400 transaction_missing");
        assert.equal(tokenRequests(before).length, 0);
      });
    });
  }

  test("no secret stands in a log or among counters, and no gate has trapped", async () => {
    const told = [...oidc.requests, ...modest.requests].flatMap(({ params, authorization }) => [
      params.code, params.code_verifier, params.client_assertion, params.id_token_hint, params.request_uri, params.nonce,
      authorization,
    ]);
    const secrets = [OLD, NEW, assertionKey.privateKey.export({ format: "jwk" }).d, ...told,
      ...Object.values(CLIENTS).map(({ secret }) => secret)].filter(Boolean);
    assert.ok(secrets.length > 100);
    for (const envoy of Object.values(envoys)) {
      await assertKept(envoy, secrets);
      envoy.assertNoTrap();
      assert.doesNotMatch(envoy.log, /eyJ/);
    }
  });
});

function registered([method, { id, secret }]) {
  return {
    client_id: id,
    token_endpoint_auth_method: method,
    ...(method.startsWith("client_secret") && { client_secret: secret }),
    ...(method === "private_key_jwt" && { jwks: { keys: [assertionKey.jwk] }, token_endpoint_auth_signing_alg: "ES256" }),
  };
}

/** What a client sends of itself in a form, beside an assertion. */
function credentials(method, { id, secret }) {
  return {
    client_secret_basic: {},
    client_secret_post: { client_id: id, client_secret: secret },
    private_key_jwt: { client_id: id, client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" },
    none: { client_id: id },
  }[method];
}

/** RFC 6749 section 2.3.1. */
function basic(id, secret) {
  const [user, password] = [id, secret].map((text) => new URLSearchParams({ "": text }).toString().slice(1));
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

function reasons(answers) {
  return answers.map(({ reason }) => reason).filter(Boolean);
}

function parameters({ url }) {
  return Object.fromEntries(new URL(url).searchParams);
}

function callbackOf(answers) {
  return answers.find(({ url }) => url.startsWith(`${REDIRECT_URI}?code=`));
}

/** Everything up to the provider's answer; gives the address that it leads to. */
async function upToCallback(person, page) {
  const answers = await person.visit(page, { until: ({ href }) => href.startsWith(REDIRECT_URI) });
  return answers.at(-1).header("location");
}

function decoded(token) {
  const [header, claims] = token.split(".").slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
  return { header, claims };
}
