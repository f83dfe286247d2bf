// Envoy's crypto and the gate's own come to the same verdict on every signature: Envoy here, the gate's own in
// tests/vectors.rs, which gets the tokens of this test.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { before, describe, test } from "node:test";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

import { startEnvoy } from "./support/envoy.mjs";
import { forgedSignatures, forgersKeys } from "./support/forgeries.mjs";
import { ask, assertHealthy, cookie, inlineGate, signatures } from "./support/gate.mjs";
import { mint } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const REPOSITORY = fileURLToPath(new URL("../../", import.meta.url));
const ALGORITHMS = ["RS256", "RS384", "RS512", "ES256"];
const AT_LEAST = { RS256: 90, RS384: 175, RS512: 175, ES256: 190 };
const AT_A_TIME = 32;
const REASONS = { true: "satisfied", false: "signature_invalid" };

describe("signatures that are nearly right", () => {
  let keys;
  let tokens;

  before(async () => {
    keys = await forgersKeys();
    tokens = forgedSignatures(keys);
    for (const alg of ALGORITHMS) assert.ok(count(tokens, alg) >= AT_LEAST[alg], `only ${count(tokens, alg)} of ${alg}`);
    assert.equal(new Set(tokens.map(({ name }) => name)).size, tokens.length, "names are unique");
  });

  for (const version of ["newest", "oldest"]) {
    test(`${version} Envoy takes the good ones alone, by its own crypto`, async () => {
      const upstream = await startUpstream();
      let envoy;
      try {
        const config = inlineGate({ provider: { jwks: keys.jwks }, token: { algorithms: ALGORITHMS } });
        envoy = await startEnvoy({ version, listeners: [{ name: "gate", config }], clusters: { app: upstream.port } });
        const reasons = await inTurns(tokens, async ({ token }) => {
          const { entry } = await ask(envoy, "gate", { headers: [cookie(token)] });
          return entry.reason;
        });
        const wrong = tokens.map(({ name, good }, at) => ({ name, found: reasons[at], expected: REASONS[good] }))
          .filter(({ found, expected }) => found !== expected);
        assert.deepEqual(wrong, []);
        assert.equal(upstream.count, tokens.filter(({ good }) => good).length);
        for (const alg of ALGORITHMS) assert.equal(await envoy.sum(signatures("host", alg)), count(tokens, alg), alg);
        assert.equal(await envoy.sum(signatures("software", "[^.]+")), 0);
        await assertHealthy(envoy, "gate", upstream, mint({ alg: "ES256", key: keys.ec }));
      } finally {
        await envoy?.stop();
        await upstream.stop();
      }
    });
  }

  test("so does the gate's own", async () => {
    const verdicts = tokens.map(({ name, token, good }) => ({ name, token, reason: REASONS[good] }));
    const { code, log } = await cargo(
      ["test", "--quiet", "--locked", "--test", "vectors", "--", "--ignored", "--exact", "software_agrees_with_a_host"],
      JSON.stringify({ jwks: keys.jwks, verdicts }),
    );
    assert.equal(code, 0, log);
    assert.match(log, /1 passed/);
  });
});

function count(tokens, algorithm) {
  return tokens.filter(({ alg }) => alg === algorithm).length;
}

/** What `ask` gives for each item, some at a time. */
async function inTurns(items, ask) {
  const results = [];
  while (results.length < items.length) {
    results.push(...await Promise.all(items.slice(results.length, results.length + AT_A_TIME).map(ask)));
  }
  return results;
}

async function cargo(args, input) {
  const child = spawn("cargo", args, { cwd: REPOSITORY });
  child.stdin.on("error", () => {}); // it has ended before it has read all: its log says why
  child.stdin.end(input);
  const [out, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  return { code, log: out + errors };
}
