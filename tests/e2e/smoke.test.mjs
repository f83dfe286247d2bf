// The main job in real Envoy, newest and oldest: what a token must prove before the app sees a request.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { startEnvoy, startRefused } from "./support/envoy.mjs";
import {
  ask, assertHealthy, AUTHORIZE, cookie, decisions, expect, inlineGate, MULTI_FACTOR, NAVIGATION, REDIRECT_URI, stepUp,
} from "./support/gate.mjs";
import { CLIENT_ID, mint, signingKey } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const XHR = [["x-requested-with", "XMLHttpRequest"], ["accept", "application/json"]];

for (const version of ["newest", "oldest"]) {
  describe(`smoke, ${version} Envoy`, () => {
    let upstream;
    let envoy;

    before(async () => {
      upstream = await startUpstream();
      envoy = await startEnvoy({
        version,
        listeners: [
          { name: "gate", config: inlineGate() },
          {
            name: "strict",
            config: inlineGate({ rules: [{ paths: ["/salary/**"], require: { amr: "mfa", max_age: "15m" } }] }),
          },
        ],
        clusters: { app: upstream.port },
      });
    });
    after(async () => {
      await envoy?.stop();
      await upstream?.stop();
    });

    const refused = async (options, status, reason, name = "gate") => {
      const before = upstream.count;
      const answer = await expect(envoy, name, options, status, reason);
      assert.equal(upstream.count, before, "the app sees nothing");
      return answer;
    };

    test("without a token: to the provider, with every parameter", async () => {
      const answer = await refused({ headers: NAVIGATION }, 302, "token_missing");
      const location = new URL(answer.header("location"));
      assert.equal(location.origin + location.pathname, AUTHORIZE);
      const { state, nonce, ...rest } = stepUp(answer);
      assert.deepEqual(rest, {
        response_type: "code",
        client_id: CLIENT_ID,
        redirect_uri: REDIRECT_URI,
        scope: "openid",
        acr_values: MULTI_FACTOR,
      });
      assert.equal([...location.searchParams].length, 7, "each parameter once");
      assert.equal(answer.header("cache-control"), "no-store");

      const again = stepUp(await refused({ headers: NAVIGATION }, 302, "token_missing"));
      for (const value of [state, nonce]) assert.ok(value.length >= 16, "long enough to be unguessable");
      assert.equal(new Set([state, nonce, again.state, again.nonce]).size, 4, "new ones each time");
    });

    test("max_age of the rule is asked for, and an old login is not enough", async () => {
      const now = Math.floor(Date.now() / 1000);
      const old = mint({ claims: { auth_time: now - 1800 } });
      const answer = await refused({ headers: [cookie(old)] }, 302, "auth_too_old", "strict");
      assert.equal(stepUp(answer).max_age, "900");
      await refused({ headers: [cookie(mint())] }, 302, "auth_time_missing", "strict");
      await expect(envoy, "strict", { headers: [cookie(mint({ claims: { auth_time: now - 60 } }))] }, 200, "satisfied");
    });

    test("a token without amr", async () => {
      await refused({ headers: [cookie(mint({ claims: { amr: undefined } }))] }, 302, "amr_missing");
    });

    test("a token of a password alone", async () => {
      await refused({ headers: [cookie(mint({ claims: { amr: ["pwd"] } }))] }, 302, "amr_insufficient");
    });

    test("amr as a string does not pass", async () => {
      const before = upstream.count;
      const { answer, entry } = await ask(envoy, "gate", { headers: [cookie(mint({ claims: { amr: "mfa" } }))] });
      assert.equal(answer.status, 302);
      assert.match(entry.reason, /^(token_malformed|amr_)/);
      assert.equal(upstream.count, before, "the app sees nothing");
    });

    test("a token with mfa reaches the app, unchanged", async () => {
      const before = upstream.count;
      const token = mint({ claims: { amr: ["pwd", "mfa"] } });
      const path = "/salary/2026?month=11&x=%20y";
      const answer = await expect(envoy, "gate", { path, headers: [cookie(token), ["x-mine", "1"]] }, 200, "satisfied");
      assert.equal(answer.json().app, true);
      assert.equal(upstream.count, before + 1);
      const [seen] = upstream.at(path);
      const header = (name) => seen.headers.filter(([known]) => known === name).map(([, value]) => value);
      assert.deepEqual(header("x-mine"), ["1"]);
      assert.ok(header("cookie").length === 1 && header("cookie")[0] === `id_token=${token}`, "the cookie is untouched");
    });

    test("a path without a rule is not touched", async () => {
      const answer = await expect(envoy, "gate", { path: "/news?salary", headers: [cookie("junk")] }, 200, null);
      assert.equal(answer.header("vary"), undefined);
      assert.equal(answer.header("cache-control"), undefined);
      assert.equal(upstream.at("/news?salary").length, 1);
    });

    test("expired, foreign and forged tokens", async () => {
      const now = Math.floor(Date.now() / 1000);
      const foreign = { ...signingKey("RS256", "other"), kid: signingKey("RS256").kid };
      await refused({ headers: [cookie(mint({ claims: { iat: now - 7200, exp: now - 3600 } }))] }, 302, "token_expired");
      await refused({ headers: [cookie(mint({ claims: { iss: "https://evil.example/" } }))] }, 302, "issuer_mismatch");
      await refused({ headers: [cookie(mint({ claims: { aud: "other" } }))] }, 302, "audience_mismatch");
      await refused({ headers: [cookie(mint({ key: foreign }))] }, 302, "signature_invalid");
      await refused({ headers: [cookie("junk")] }, 302, "token_malformed");
    });

    test("an XHR is challenged, not redirected", async () => {
      const missing = await refused({ headers: XHR }, 401, "token_missing");
      assert.match(missing.header("www-authenticate"), /^Bearer error="invalid_token"/);

      const password = mint({ claims: { amr: ["pwd"] } });
      const answer = await refused({ headers: [...XHR, cookie(password)] }, 401, "amr_insufficient");
      const challenge = answer.header("www-authenticate");
      assert.match(challenge, /^Bearer error="insufficient_user_authentication"/);
      assert.ok(challenge.includes(`acr_values="${MULTI_FACTOR}"`));
      assert.equal(answer.header("location"), undefined);
      assert.equal(answer.header("content-type").split(";")[0], "application/problem+json");
      const problem = answer.json();
      assert.equal(problem.reason, "amr_insufficient");
      assert.ok(problem.step_up_url.startsWith(`${AUTHORIZE}?`));
    });

    test("every decision is counted", async () => {
      const redirects = decisions("redirect", "token_missing");
      const forwards = decisions("forward", "satisfied");
      const challenges = decisions("challenge", "token_missing");
      const counts = async () => Promise.all([redirects, forwards, challenges].map((name) => envoy.sum(name)));
      const earlier = await counts();
      await expect(envoy, "gate", {}, 302, "token_missing");
      await expect(envoy, "gate", { headers: [cookie(mint())] }, 200, "satisfied");
      await expect(envoy, "gate", { headers: [cookie(mint())] }, 200, "satisfied");
      await expect(envoy, "gate", { headers: XHR }, 401, "token_missing");
      assert.deepEqual(await counts(), [earlier[0] + 1, earlier[1] + 2, earlier[2] + 1]);
    });

    test("every worker is healthy at the end", async () => {
      await assertHealthy(envoy, "gate", upstream);
    });
  });

  // Envoy hands a `Struct` to the module as protobuf, whatever its documentation says of JSON.
  test(`a configuration in a Struct, ${version} Envoy`, async (t) => {
    const upstream = await startUpstream();
    t.after(() => upstream.stop());
    const config = inlineGate({ step_up: { params: { audience: "ü \"x\"" } } });
    const listeners = [{ name: "gate", configAs: "struct", config }];
    const envoy = await startEnvoy({ version, listeners, clusters: { app: upstream.port } });
    t.after(() => envoy.stop());
    assert.equal(stepUp(await expect(envoy, "gate", {}, 302, "token_missing")).audience, "ü \"x\"");
    await assertHealthy(envoy, "gate", upstream);
  });

  describe(`a bad configuration, ${version} Envoy`, { concurrency: 2 }, () => {
    const start = (config) => startRefused({ version, listeners: [{ name: "gate", config }], clusters: { app: 1 } });

    test("is refused at the start, with every error", async () => {
      const config = inlineGate({ rules: [{ paths: ["/salary/**"], require: { max_age: "-5s" } }], clients: {} });
      delete config.client.id;
      config.provider.isuer = "x";
      const { code, log } = await start(config);
      assert.notEqual(code, 0);
      for (const place of ["rules[0].require.max_age", "client.id", "provider.isuer", "clients"]) {
        assert.ok(log.includes(place), `the log names \`${place}\``);
      }
      assert.doesNotMatch(log, /panicked|Uncaught/);
    });

    if (version === "oldest") return;

    for (const config of ["", "{", "[]", "null"]) {
      test(`is refused when it is \`${config}\``, async () => {
        const { code, log } = await start(config);
        assert.notEqual(code, 0);
        assert.doesNotMatch(log, /panicked|Uncaught/);
      });
    }
  });
}
