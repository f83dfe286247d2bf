// That the search for secrets, which every Envoy of these tests goes through when it is stopped, finds them.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";

import { startEnvoy, startRefused } from "./support/envoy.mjs";
import { inlineGate } from "./support/gate.mjs";
import { Answer, CookieJar, request } from "./support/http.mjs";
import { startProvider } from "./support/provider.mjs";
import { assertKeepsSecrets, configuredSecrets, secret, sentSecrets } from "./support/secrets.mjs";
import { mint, signingKey } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const random = () => randomBytes(24).toString("base64url");

test("a secret in Envoy's log", async () => {
  const code = secret("code", random());
  for (const [shown, found] of [[code, /shows a code$/], ["eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.", /like a JWT$/]]) {
    const config = inlineGate({ callback: { response_mode: shown } });
    await assert.rejects(startRefused({ listeners: [{ name: "gate", config }], clusters: { app: 1 } }), found);
  }
});

test("a secret in an access log", async () => {
  const upstream = await startUpstream();
  const log = {
    name: "envoy.access_loggers.stdout",
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
      log_format: { json_format: { details: "%REQ(authorization)%" } },
    },
  };
  const listeners = [{ name: "all", extraHcm: { access_log: [log] } }];
  const envoy = await startEnvoy({ listeners, clusters: { app: upstream.port } });
  const [, , signature] = mint().split(".");
  await request(envoy.port("all"), { headers: [["authorization", signature]] });
  await assert.rejects(envoy.stop(), /shows a token$/);
  await upstream.stop();
});

test("every helper tells the secrets that it makes or sees", async () => {
  const provider = await startProvider();
  const [code, posted, verifier, key, clientSecret, named, sealed] = Array.from({ length: 7 }, random);
  provider.grants.set(code, "");
  await provider.stop();
  sentSecrets({ code: posted, code_verifier: verifier }, `Basic ${code}`);
  const config = { client: { secret: clientSecret }, callback: { keys: [key, { env: "KEY" }] } };
  configuredSecrets({ config, env: { KEY: named } });
  new CookieJar().take(new Answer(302, [["set-cookie", `__Host-stepgate_tx_x=${sealed}; Path=/`]]));
  const [header, claims, signature] = mint().split(".");
  const { d } = signingKey("ES256").privateKey.export({ format: "jwk" });
  const all = [code, posted, verifier, `Basic ${code}`, key, named, clientSecret, sealed, signature, d, `${header}.${claims}.`];
  for (const [at, value] of all.entries()) {
    assert.throws(() => assertKeepsSecrets(`<p>${value}</p>`, "a page"), ({ message }) => {
      assert.match(message, /^a page shows /, `number ${at}`);
      return !message.includes(value);
    });
  }
  assertKeepsSecrets("stepgate: a page, a code, eyJ and a.b.c", "a page");
});
