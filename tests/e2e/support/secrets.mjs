// What nobody but its owner may read. Helpers that mint, issue, seal or configure a secret tell it here; every Envoy that is
// stopped (envoy.mjs) and every answer of a gate's own (gate.mjs) is searched for all of them, and for whatever looks like a JWT.

import assert from "node:assert/strict";

/** Shorter values are words of the tests, such as `code`. */
const MIN_LENGTH = 9;

const JWT = /eyJ[\w-]*\.[\w-]+/;

const kinds = new Map();

/** Takes note of a secret, and gives it back. */
export function secret(kind, value) {
  if (typeof value === "string" && value.length >= MIN_LENGTH) kinds.set(value, kind);
  return value;
}

/** Takes note of those in a gate's configuration. */
export function configuredSecrets({ config, env = {} }) {
  const { client, callback } = Object(config);
  const told = (value) => (typeof value === "string" ? value : env[value?.env]);
  secret("client secret", told(client?.secret));
  for (const key of [callback?.keys].flat()) secret("sealing key", told(key));
}

/** Takes note of those in the parameters of a request to a provider. */
export function sentSecrets({ code, code_verifier, client_secret, client_assertion, id_token_hint }, authorization) {
  secret("code", code);
  secret("verifier", code_verifier);
  secret("client secret", client_secret);
  secret("client assertion", client_assertion);
  secret("token", id_token_hint);
  secret("client secret", authorization);
}

/** Fails when a secret stands in a text. The message does not repeat it. */
export function assertKeepsSecrets(text, where) {
  assert.ok(!JWT.test(text), `${where} shows something like a JWT`);
  for (const [value, kind] of kinds) assert.ok(!text.includes(value), `${where} shows a ${kind}`);
}
