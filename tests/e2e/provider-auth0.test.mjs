// What runs at Auth0, with events as Auth0 documents them: providers/auth0/action.js, and the Rule before it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const CLIENT = "k3yC1ient";
const MULTI_FACTOR = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";

/** The source of one of them, as a tenant has it: with the client in place. */
async function source(name) {
  const text = await readFile(fileURLToPath(new URL(`../../providers/auth0/${name}`, import.meta.url)), "utf8");
  assert.equal(text.split("REPLACE_WITH_YOUR_CLIENT_ID").length, 2, "one place for the client");
  return text.replace("REPLACE_WITH_YOUR_CLIENT_ID", CLIENT);
}

const secondsAgo = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();

describe("the Action", () => {
  /** A login with a password, by the authorization code flow. */
  const login = ({ client = CLIENT, methods = [], transaction = {} } = {}) => ({
    authentication: { methods: [{ name: "pwd", timestamp: secondsAgo(1) }, ...methods] },
    client: { client_id: client, name: "Acme Portal", metadata: {} },
    connection: { id: "con_1", name: "Username-Password-Authentication", strategy: "auth0" },
    request: { method: "GET", hostname: "tenant.auth0.com", query: {}, body: {} },
    transaction: {
      protocol: "oidc-basic-profile",
      requested_scopes: ["openid"],
      response_type: ["code"],
      redirect_uri: "https://app.example.com/callback",
      ui_locales: [],
      ...transaction,
    },
    user: { user_id: "auth0|5a2b1c", email: "ada@example.com", enrolledFactors: [{ type: "otp" }] },
  });

  const asking = (...values) => ({ acr_values: values });

  const without = (event, member) => {
    delete event[member];
    return event;
  };

  /** What the Action asks Auth0 for. Anything but `api.multifactor.enable` would throw. */
  async function asked(event) {
    const action = {};
    new Function("exports", await source("action.js"))(action);
    const calls = [];
    const result = await action.onExecutePostLogin(event, { multifactor: { enable: (...given) => calls.push(given) } });
    assert.equal(result, undefined);
    return calls;
  }

  const once = [["any", { allowRememberBrowser: false }]];
  const never = [];

  for (const [name, event, expected] of [
    ["asked for", login({ transaction: asking(MULTI_FACTOR) }), once],
    ["asked for, after another value", login({ transaction: asking("urn:example:silver", MULTI_FACTOR) }), once],
    ["asked for, before another value", login({ transaction: asking(MULTI_FACTOR, "urn:example:silver") }), once],
    ["another client", login({ client: "0ther", transaction: asking(MULTI_FACTOR) }), never],
    ["a client whose ID begins with that of a listed one", login({ client: `${CLIENT}2`, transaction: asking(MULTI_FACTOR) }), never],
    ["a client whose ID is the beginning of a listed one", login({ client: "k3y", transaction: asking(MULTI_FACTOR) }), never],
    ["no acr_values", login(), never],
    ["no transaction", without(login(), "transaction"), never],
    ["empty acr_values", login({ transaction: asking() }), never],
    ["another value", login({ transaction: asking("urn:example:silver") }), never],
    ["a value that begins with the URI", login({ transaction: asking(`${MULTI_FACTOR}-physical`) }), never],
    ["a value that ends with the URI", login({ transaction: asking(`x${MULTI_FACTOR}`) }), never],
    ["two values that would be the URI together", login({ transaction: asking(MULTI_FACTOR.slice(0, 20), MULTI_FACTOR.slice(20)) }), never],
    ["the URI in capitals", login({ transaction: asking(MULTI_FACTOR.toUpperCase()) }), never],

    ["an Action before has just had the person prove a second factor",
      login({ transaction: asking(MULTI_FACTOR), methods: [{ name: "mfa", type: "otp", timestamp: secondsAgo(1) }] }), never],
    ["the same, and nothing was asked for", login({ methods: [{ name: "mfa", timestamp: secondsAgo(1) }] }), never],
    ["a second factor an hour ago, in the same session: this token would have no amr",
      login({ transaction: asking(MULTI_FACTOR), methods: [{ name: "mfa", timestamp: secondsAgo(3600) }] }), once],
    ["a second factor ten seconds ago, in another login",
      login({ transaction: asking(MULTI_FACTOR), methods: [{ name: "mfa", timestamp: secondsAgo(10) }] }), once],
    ["a second factor an hour ahead", login({ transaction: asking(MULTI_FACTOR), methods: [{ name: "mfa", timestamp: secondsAgo(-3600) }] }), once],
    ["a second factor at no time", login({ transaction: asking(MULTI_FACTOR), methods: [{ name: "mfa" }] }), once],
    ["a passkey as the first factor", login({ transaction: asking(MULTI_FACTOR), methods: [{ name: "passkey", timestamp: secondsAgo(1) }] }), once],
    ["no methods", without(login({ transaction: asking(MULTI_FACTOR) }), "authentication"), once],
    ["methods that are not told", { ...login({ transaction: asking(MULTI_FACTOR) }), authentication: {} }, once],

    ["a refresh token", login({ transaction: { protocol: "oauth2-refresh-token" } }), never],
    ["a refresh token of a login that asked", login({ transaction: { protocol: "oauth2-refresh-token", ...asking(MULTI_FACTOR) } }), never],
    ["a silent login", login({ transaction: { prompt: ["none"], response_mode: "web_message" } }), never],
    ["a silent login that asks: it has to fail, and not to bring a token without the proof",
      login({ transaction: { prompt: ["none"], ...asking(MULTI_FACTOR) } }), once],
    ["a login anew", login({ transaction: { prompt: ["login"], ...asking(MULTI_FACTOR) } }), once],
  ]) {
    test(name, async () => assert.deepEqual(await asked(event), expected));
  }
});

describe("the Rule, which no tenant runs any more", () => {
  const context = ({ client = CLIENT, query = {}, protocol = "oidc-basic-profile" } = {}) => ({
    clientID: client,
    clientName: "Acme Portal",
    connection: "Username-Password-Authentication",
    protocol,
    request: { query, body: {}, ip: "192.0.2.7" },
    stats: { loginsCount: 3 },
    sso: { current_clients: [client] },
  });

  /** What the Rule leaves in the context. It must hand on user and context, once and without an error. */
  async function multifactor(given) {
    const rule = new Function(`return (\n${await source("rule.js")}\n)`)();
    const user = { user_id: "auth0|5a2b1c" };
    const results = [];
    rule(user, given, (...result) => results.push(result));
    assert.deepEqual(results, [[null, user, given]]);
    return given.multifactor;
  }

  const asks = { provider: "guardian", allowRememberBrowser: false };

  for (const [name, given, expected] of [
    ["asked for", context({ query: { acr_values: MULTI_FACTOR } }), asks],
    ["another client", context({ client: "0ther", query: { acr_values: MULTI_FACTOR } }), undefined],
    ["no acr_values", context(), undefined],
    ["empty acr_values", context({ query: { acr_values: "" } }), undefined],
    ["another value", context({ query: { acr_values: "urn:example:silver" } }), undefined],
    ["a value that begins with the URI", context({ query: { acr_values: `${MULTI_FACTOR}-physical` } }), undefined],
    ["two values: it compares with ===", context({ query: { acr_values: `${MULTI_FACTOR} urn:example:silver` } }), undefined],
    ["a refresh token", context({ protocol: "oauth2-refresh-token" }), undefined],
    ["a silent login", context({ query: { prompt: "none" } }), undefined],
    ["a silent login that asks", context({ query: { prompt: "none", acr_values: MULTI_FACTOR } }), asks],
  ]) {
    test(name, async () => assert.deepEqual(await multifactor(given), expected));
  }

  test("says in its first line that it is over", async () => {
    assert.match((await source("rule.js")).split("\n", 1)[0], /NOT FOR USE.*2026-11-18/);
  });
});
