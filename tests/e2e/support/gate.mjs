// Gate configurations for tests, and what tests ask of a gate.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { REQUEST_ID } from "./envoy.mjs";
import { request } from "./http.mjs";
import { assertKeepsSecrets } from "./secrets.mjs";
import { CLIENT_ID, ISSUER, mint, publicKeys } from "./tokens.mjs";
import { eventually } from "./wait.mjs";

export const AUTHORIZE = `${ISSUER}authorize`;
export const REDIRECT_URI = "https://app.example.com/callback";
export const MULTI_FACTOR = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";

/** A gate with inline keys, which fetches nothing. Sections that a test gives are merged into it, one level deep. */
export function inlineGate(sections = {}) {
  return gate({ issuer: ISSUER, authorization_endpoint: AUTHORIZE, jwks: { keys: publicKeys("RS256") } }, sections);
}

/** A gate that discovers its provider, through the cluster `idp`. */
export function discoveringGate(provider, sections = {}) {
  return gate({ issuer: provider.issuer, cluster: "idp" }, sections);
}

/** A gate that fetches the keys alone, through the cluster `idp`. */
export function fetchingGate(provider, sections = {}) {
  return gate({
    issuer: provider.issuer,
    cluster: "idp",
    authorization_endpoint: `${provider.issuer}authorize`,
    jwks_uri: `${provider.issuer}jwks`,
  }, sections);
}

/** A header with the token in its cookie. */
export function cookie(token, name = "id_token") {
  return ["cookie", `${name}=${token}`];
}

/** Headers of a browser's navigation. */
export const NAVIGATION = [
  ["accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
  ["sec-fetch-mode", "navigate"],
  ["sec-fetch-dest", "document"],
];

/**
 * Sends a request to a gate and gives `{ answer, entry }`: the answer and its line in the access log.
 *
 * @param {object} options  see `Connection.request`; with `connection`, the request is sent on that one
 */
export async function ask(envoy, name, { connection, headers = [], ...options } = {}) {
  const id = randomUUID();
  const message = { path: "/salary", ...options, headers: [...headers, [REQUEST_ID, id]] };
  const answer = connection ? await connection.request(message) : await request(envoy.port(name), message);
  const entry = await envoy.accessLog(id);
  if (entry.details.startsWith("stepgate_")) assertKeepsSecrets(answer.text(), `the answer to ${message.path}`);
  return { answer, entry };
}

/** Sends a request and checks the status, and the gate's reason where it is told (details and filter state). */
export async function expect(envoy, name, options, status, reason) {
  const { answer, entry } = await ask(envoy, name, options);
  assert.equal(`${answer.status} ${entry.reason}`, `${status} ${reason}`);
  if (reason === "satisfied" || reason === null) assert.doesNotMatch(entry.details, /stepgate/);
  else assert.equal(entry.details, `stepgate_${reason}`);
  return answer;
}

/** The parameters of the authorize URL that an answer sends the browser to. */
export function stepUp(answer) {
  const { searchParams } = new URL(answer.header("location"));
  return Object.fromEntries(searchParams);
}

/** The counter of a decision. */
export function decisions(decision, reason) {
  return `^wasmcustom\\.stepgate_decisions\\.decision=${decision}\\.reason=${reason}$`;
}

/** The counter of signature checks. */
export function signatures(by, algorithm) {
  return `^wasmcustom\\.stepgate_signatures\\.by=${by}\\.algorithm=${algorithm}$`;
}

/** The counter of fetches. */
export function fetches(endpoint, result) {
  return `^wasmcustom\\.stepgate_fetches\\.endpoint=${endpoint}\\.result=${result}$`;
}

/** The counters of fetches that failed. */
export function failedFetches(endpoint) {
  return fetches(endpoint, "([^o].*|o([^k].*)?|ok.+)");
}

/** A token that satisfies the default rule of a gate on this provider. */
export function providerToken(provider, options = {}) {
  return mint({ ...options, claims: { iss: provider.issuer, ...options.claims } });
}

/**
 * What must hold after anything that a test did: on every worker a good request reaches the app, and no VM has
 * trapped.
 */
export async function assertHealthy(envoy, name, upstream, token = mint()) {
  const connections = await envoy.connections(name);
  try {
    for (const [worker, connection] of connections.entries()) {
      const path = `/salary/after-${randomUUID()}`;
      const { answer, entry } = await ask(envoy, name, { connection, path, headers: [cookie(token)] });
      assert.equal(answer.status, 200, `a good request on worker ${worker}: ${entry.details}`);
      assert.equal(upstream.at(path).length, 1, `the app has the good request on worker ${worker}`);
    }
  } finally {
    connections.forEach((connection) => connection.close());
  }
  envoy.assertNoTrap();
}

/** Waits until good requests pass again on every worker: each finds out for itself, and asks again in its own time. */
export async function recovers(envoy, name, upstream, token) {
  const connections = await envoy.connections(name);
  try {
    await Promise.all(connections.map((connection, worker) => eventually(20_000, `worker ${worker} has recovered`, async () => {
      const { answer } = await ask(envoy, name, { connection, headers: [cookie(token)] });
      return answer.status === 200;
    })));
  } finally {
    connections.forEach((connection) => connection.close());
  }
  await assertHealthy(envoy, name, upstream, token);
}

/** Fails when one of these stands in Envoy's log, or among its counters. */
export async function assertKept(envoy, secrets) {
  const told = envoy.log + await envoy.admin("/stats");
  secrets.forEach((secret, at) => assert.ok(!told.includes(secret), `secret ${at} is kept`));
}

function gate(provider, { provider: providerChanges, client, rules, ...sections }) {
  return {
    provider: { ...provider, ...providerChanges },
    client: { id: CLIENT_ID, redirect_uri: REDIRECT_URI, ...client },
    rules: rules ?? [{ paths: ["/salary/**"] }],
    ...sections,
  };
}
