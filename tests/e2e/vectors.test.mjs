// Envoy's crypto and the gate's own come to the same verdict on every signature: Envoy here, the gate's own in
// tests/vectors.rs, which gets the tokens of this test.
//
// Messages of published vectors are no tokens. They go through tests/host-crypto/, a module with the gate's own way to
// Envoy's crypto, and are compared with what is published and with the gate's own verdict (examples/signatures.rs).

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { before, describe, test } from "node:test";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

import { startEnvoy } from "./support/envoy.mjs";
import { forgedSignatures, forgersKeys } from "./support/forgeries.mjs";
import { ask, assertHealthy, cookie, inlineGate, signatures } from "./support/gate.mjs";
import { connect } from "./support/http.mjs";
import { mint, publicKeys } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";

const REPOSITORY = fileURLToPath(new URL("../../", import.meta.url));
const ALGORITHMS = ["RS256", "RS384", "RS512", "ES256"];
const AT_LEAST = { RS256: 90, RS384: 175, RS512: 175, ES256: 190 };
const AT_A_TIME = 32;
const HOST_CRYPTO = fileURLToPath(new URL("../../dist/host-crypto.wasm", import.meta.url));
const EXCEPTIONS = new URL("../vectors/host-exceptions.json", import.meta.url);
/** How many published vectors there are by algorithm and verdict of Envoy's: none gets lost. */
const PUBLISHED = {
  "RS256 valid": 32,
  "RS256 invalid": 919,
  "RS256 no key": 319,
  "RS384 valid": 27,
  "RS384 invalid": 920,
  "RS384 no key": 321,
  "RS512 valid": 27,
  "RS512 invalid": 920,
  "RS512 no key": 321,
  "ES256 valid": 174,
  "ES256 invalid": 680,
};
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

describe("published vectors", () => {
  let groups;
  let exceptions;

  before(async () => {
    const printed = await cargo(["run", "--quiet", "--locked", "--example", "signatures"]);
    assert.equal(printed.code, 0, printed.log);
    groups = JSON.parse(printed.out);
    exceptions = new Map(JSON.parse(await readFile(EXCEPTIONS, "utf8"))
      .flatMap(({ verdict, vectors }) => vectors.map((name) => [name, verdict])));
  });

  for (const version of ["newest", "oldest"]) {
    test(`${version} Envoy's verdicts are the published ones and the gate's own`, async () => {
      await withHostCrypto(version, async (verdicts) => {
        const wrong = [];
        const counts = {};
        const unmet = new Set(exceptions.keys());
        for (const { jwk, checks } of groups) {
          const found = await verdicts({ jwk, checks });
          for (const [at, { name, alg, published, software }] of checks.entries()) {
            const verdict = found[at];
            counts[`${alg} ${verdict}`] = (counts[`${alg} ${verdict}`] ?? 0) + 1;
            const exception = exceptions.get(name);
            unmet.delete(name);
            // No verdict of Envoy's where there is no key to ask it with.
            const expected = software === "no key" ? software : (exception ?? published);
            if (verdict !== expected || verdict !== software || exception === published) {
              wrong.push({ name, verdict, expected, published, software });
            }
          }
        }
        assert.deepEqual(wrong, []);
        assert.deepEqual([...unmet], [], "exceptions that no vector meets");
        assert.deepEqual(counts, PUBLISHED);

        // It is not asked about other algorithms: signatures.test.mjs shows that the gate checks those itself.
        const ask = async (jwk, ...algs) =>
          verdicts({ jwk, checks: algs.map((alg) => ({ alg, message: "", signature: "" })) });
        const [rsa, ec, edwards] = publicKeys("RS256", "ES256", "EdDSA").map(({ alg: _, ...jwk }) => jwk);
        assert.deepEqual(await ask(rsa, "PS256", "PS384", "PS512", "RS256"), [...Array(3).fill("unsupported"), "invalid"]);
        assert.deepEqual(await ask(ec, "ES256", "RS256"), ["invalid", "no key"]);
        assert.deepEqual(await ask(edwards, "EdDSA"), ["unsupported"]);
        assert.deepEqual(await ask(undefined, "HS256"), ["unsupported"]);
      });
    });
  }
});

/** Runs `use` with a function that has Envoy check signatures. */
async function withHostCrypto(version, use) {
  const upstream = await startUpstream();
  let envoy;
  let connection;
  try {
    const listener = { name: "crypto", module: HOST_CRYPTO, config: "" };
    envoy = await startEnvoy({ version, listeners: [listener], clusters: { app: upstream.port }, concurrency: 1 });
    connection = await connect(envoy.port("crypto"));
    await use(async (request) => {
      const answer = await connection.request({ method: "POST", path: "/", body: JSON.stringify(request) });
      assert.equal(answer.status, 200, answer.text());
      return answer.json();
    });
    envoy.assertNoTrap();
  } finally {
    connection?.close();
    await envoy?.stop();
    await upstream.stop();
  }
}

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

async function cargo(args, input = "") {
  const child = spawn("cargo", args, { cwd: REPOSITORY });
  child.stdin.on("error", () => {}); // it has ended before it has read all: its log says why
  child.stdin.end(input);
  const [out, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  return { code, out, log: out + errors };
}
