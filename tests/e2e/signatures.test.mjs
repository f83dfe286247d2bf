// Who checks a signature: Envoy's own crypto where it can, the gate's where Envoy cannot; never nobody.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { startEnvoy } from "./support/envoy.mjs";
import { ask, assertHealthy, cookie, expect, inlineGate, signatures } from "./support/gate.mjs";
import { mint, publicKeys, signingKey, tampered } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const BY_HOST = ["RS256", "RS384", "RS512", "ES256"];
const IN_SOFTWARE = ["PS256", "PS384", "PS512", "EdDSA"];
const ALL = [...BY_HOST, ...IN_SOFTWARE];
const SECRET = "a client secret of more than thirty-two bytes";

describe("signatures", () => {
  let upstream;
  let envoy;

  before(async () => {
    const jwks = { keys: publicKeys(...ALL) };
    upstream = await startUpstream();
    envoy = await startEnvoy({
      listeners: [
        { name: "gate", config: inlineGate({ provider: { jwks }, token: { algorithms: ALL } }) },
        { name: "default", config: inlineGate({ provider: { jwks }, client: { secret: SECRET } }) },
        {
          name: "symmetric",
          env: { STEPGATE_CLIENT_SECRET: SECRET },
          config: inlineGate({
            client: { secret: { env: "STEPGATE_CLIENT_SECRET" } },
            token: { algorithms: ["HS256"] },
          }),
        },
      ],
      clusters: { app: upstream.port },
    });
  });
  after(async () => {
    await envoy?.stop();
    await upstream?.stop();
  });

  const checked = async () => ({
    host: await envoy.sum(signatures("host", "[^.]+")),
    software: await envoy.sum(signatures("software", "[^.]+")),
  });

  for (const alg of ALL) {
    const by = BY_HOST.includes(alg) ? "host" : "software";

    test(`${alg}: checked by ${by}, once per token and worker`, async () => {
      const counter = signatures(by, alg);
      const [connection, ...others] = await envoy.connections("gate");
      others.forEach((other) => other.close());
      const headers = [cookie(mint({ alg }))];
      const [earlier, all] = [await envoy.sum(counter), await checked()];
      await expect(envoy, "gate", { connection, headers }, 200, "satisfied");
      assert.equal(await envoy.sum(counter), earlier + 1);
      assert.deepEqual(await checked(), { ...all, [by]: all[by] + 1 }, "nobody else checks as well");
      await expect(envoy, "gate", { connection, headers }, 200, "satisfied");
      assert.equal(await envoy.sum(counter), earlier + 1, "the second time from the cache");
      connection.close();
    });

    test(`${alg}: a tampered token fails, again and again`, async () => {
      const [connection, ...others] = await envoy.connections("gate");
      others.forEach((other) => other.close());
      const token = mint({ alg });
      await expect(envoy, "gate", { connection, headers: [cookie(token)] }, 200, "satisfied");
      const before = upstream.count;
      for (const forged of [tampered(token), tampered(token), flipped(token), cut(token)]) {
        await expect(envoy, "gate", { connection, headers: [cookie(forged)] }, 302, "signature_invalid");
      }
      assert.equal(upstream.count, before);
      await expect(envoy, "gate", { connection, headers: [cookie(token)] }, 200, "satisfied");
      connection.close();
    });
  }

  test("an algorithm that is not named is not accepted, whatever the keys", async () => {
    for (const alg of ALL.slice(1)) {
      await expect(envoy, "default", { headers: [cookie(mint({ alg }))] }, 302, "algorithm_not_allowed");
    }
    await expect(envoy, "default", { headers: [cookie(mint())] }, 200, "satisfied");
  });

  test("HS256 passes only when it is named", async () => {
    const good = mint({ alg: "HS256", secret: SECRET });
    const [headers, forged] = [[cookie(good)], [cookie(mint({ alg: "HS256", secret: `${SECRET}!` }))]];
    const earlier = await envoy.sum(signatures("software", "HS256"));
    await expect(envoy, "symmetric", { headers }, 200, "satisfied");
    assert.equal(await envoy.sum(signatures("software", "HS256")), earlier + 1);
    await expect(envoy, "symmetric", { headers: forged }, 302, "signature_invalid");
    await expect(envoy, "symmetric", { headers: [cookie(tampered(good))] }, 302, "signature_invalid");
    await expect(envoy, "default", { headers }, 302, "algorithm_not_allowed");
    await expect(envoy, "gate", { headers }, 302, "algorithm_not_allowed");
    await expect(envoy, "symmetric", { headers: [cookie(mint())] }, 302, "algorithm_not_allowed");
  });

  test("a public key is not a secret, and `none` is no algorithm", async () => {
    const { kid, jwk } = signingKey();
    const confused = mint({ alg: "HS256", secret: JSON.stringify(jwk), header: { kid } });
    await expect(envoy, "gate", { headers: [cookie(confused)] }, 302, "algorithm_not_allowed");
    for (const alg of ["none", "None", "NONE", ""]) {
      const [header, payload] = mint({ header: { alg } }).split(".");
      for (const unsigned of [`${header}.${payload}.`, `${header}.${payload}`, `${header}.${payload}.AA`]) {
        const before = upstream.count;
        const { answer, entry } = await ask(envoy, "gate", { headers: [cookie(unsigned)] });
        assert.equal(answer.status, 302);
        assert.match(entry.reason, /^(algorithm_not_allowed|token_malformed)$/);
        assert.equal(upstream.count, before);
      }
    }
  });

  test("every worker is healthy at the end", async () => {
    await assertHealthy(envoy, "gate", upstream);
    await assertHealthy(envoy, "symmetric", upstream, mint({ alg: "HS256", secret: SECRET }));
  });
});

/** The token with one bit of its signature changed. */
function flipped(token) {
  const at = token.lastIndexOf(".") + 1;
  const signature = Buffer.from(token.slice(at), "base64url");
  signature[signature.length >> 1] ^= 1;
  return token.slice(0, at) + signature.toString("base64url");
}

/** The token with the last bytes of its signature missing. */
function cut(token) {
  const at = token.lastIndexOf(".") + 1;
  return token.slice(0, at) + Buffer.from(token.slice(at), "base64url").subarray(0, -4).toString("base64url");
}
