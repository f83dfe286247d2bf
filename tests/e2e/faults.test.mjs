// Faults in real Envoy with two workers. Whatever a client or a provider does: no VM traps, nothing is forwarded
// that the rules do not allow, and after each fault a good request passes on every worker.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { REQUEST_ID, startEnvoy } from "./support/envoy.mjs";
import {
  ask, assertHealthy, cookie, discoveringGate, expect, failedFetches, fetchingGate, inlineGate, NAVIGATION, providerToken, recovers,
} from "./support/gate.mjs";
import { connect, connectH2, requestH2 } from "./support/http.mjs";
import * as provide from "./support/provider.mjs";
import { KEYS, METADATA, startProvider } from "./support/provider.mjs";
import { mint, signingKey } from "./support/tokens.mjs";
import { digest, startUpstream } from "./support/upstream.mjs";
import { deferred, eventually } from "./support/wait.mjs";

const FF = "\xff\xfe\x80";
const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;

describe("what clients send", () => {
  let upstream;
  let envoy;

  before(async () => {
    upstream = await startUpstream();
    envoy = await startEnvoy({
      listeners: [
        { name: "gate", config: inlineGate(), maxHeaders: 5_000 },
        { name: "stop", config: inlineGate(), maxHeaders: 5_000, allowOnHeadersStopIteration: true },
        { name: "bearer", config: inlineGate({ token: { header: "authorization" } }), maxHeaders: 5_000 },
      ],
      clusters: { app: upstream.port },
    });
  });
  after(async () => {
    await envoy?.stop();
    await upstream?.stop();
  });

  const fault = (name, act) => test(name, async () => {
    await act();
    await assertHealthy(envoy, "gate", upstream);
  });

  /** The request is answered, the app does not see it. */
  const refused = async (options, gate = "gate") => {
    const before = upstream.count;
    const { answer } = await ask(envoy, gate, options);
    assert.ok(answer.status >= 300 && answer.status < 500, `status ${answer.status}`);
    assert.equal(upstream.count, before, "the app sees nothing");
  };
  const passes = (options, gate = "gate") => expect(envoy, gate, options, 200, "satisfied");

  const NAMES = [
    "accept", "user-agent", "cookie", "authorization", "content-type", "x-requested-with", "sec-fetch-mode",
    "sec-fetch-dest", "sec-fetch-site", "upgrade-insecure-requests", "x-forwarded-for", "referer", "x-anything",
  ];
  for (const name of NAMES) {
    fault(`${name}: not UTF-8`, async () => {
      for (const gate of ["gate", "stop", "bearer"]) {
        await refused({ headers: [[name, FF]] }, gate);
        await refused({ headers: [...NAVIGATION, [name, `id_token=${FF}; ${FF}`]] }, gate);
        await passes({ headers: [[name, FF], cookie(mint())] }, gate);
        await expect(envoy, gate, { path: "/news", headers: [[name, FF]] }, 200, null);
      }
    });
  }

  fault("not UTF-8 over HTTP/2", async () => {
    const path = `/salary/${randomUUID()}`;
    for (const name of NAMES) await requestH2(envoy.port("gate"), { path, headers: { [name]: FF } });
    assert.equal(upstream.at(path).length, 0);
    const good = cookie(mint())[1];
    const headers = { "x-anything": FF, accept: FF, cookie: [`a=${FF}`, good, `b=${FF}`] };
    assert.equal((await requestH2(envoy.port("gate"), { path, headers })).status, 200);
    assert.equal(upstream.at(path).length, 1);
  });

  fault("a token cookie that is not UTF-8", async () => {
    const [token, other] = [mint(), mint()];
    await refused({ headers: [["cookie", `id_token=${FF}`]] });
    await refused({ headers: [["cookie", `id_token=${token}${FF}`]] });
    await refused({ headers: [["cookie", `id_token=${token}`], ["cookie", `id_token=${FF}${other}`]] });
    await passes({ headers: [["cookie", `${FF}=${FF}; id_token=${token}; ${FF}`]] });
  });

  fault("a path, a host, a method, a header name that are not UTF-8", async () => {
    for (const head of [
      `GET /salary/${FF} HTTP/1.1\r\nhost: a`, `GET /salary?${FF} HTTP/1.1\r\nhost: a`, `G${FF}T /salary HTTP/1.1\r\nhost: a`,
      `GET /salary HTTP/1.1\r\nhost: a${FF}`, `GET /salary HTTP/1.1\r\nhost: a\r\nx-${FF}: 1`,
      `GET /salary HTTP/1.1\r\nhost: a\r\n${FF}: 1`,
      "GET /salary HTTP/1.1\r\nhost: a\r\nx y: 1", "GET /salary HTTP/1.1\r\nhost: a\r\n: 1",
    ]) {
      const before = upstream.count;
      const status = await sends(`${head}\r\n\r\n`);
      assert.ok(status === undefined || status >= 300, `status ${status}`);
      assert.equal(upstream.count, before);
    }
    for (const changes of [{ path: `/salary/${FF}` }, { path: `/salary?${FF}` }, { host: `a${FF}`, path: "/salary" }]) {
      const before = upstream.count;
      const status = await requestH2(envoy.port("gate"), changes).then((answer) => answer.status, () => undefined);
      assert.ok(status === undefined || status >= 300, `status ${status}`);
      assert.equal(upstream.count, before);
    }
    await passes({ headers: [["!#$%&'*+-.^_`|~0", "1"], ["x-empty", ""], cookie(mint())] });
  });

  fault("requests without a host, with two, with an odd target", async () => {
    const token = mint();
    for (const head of [
      `GET /salary HTTP/1.1\r\ncookie: id_token=${token}\r\n`, `GET /salary HTTP/1.0\r\n`,
      `GET /salary HTTP/1.1\r\nhost: a\r\nhost: b\r\n`, `OPTIONS * HTTP/1.1\r\nhost: a\r\n`,
      `GET salary HTTP/1.1\r\nhost: a\r\n`, `GET  HTTP/1.1\r\nhost: a\r\n`, `CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n`,
      `GET http:///salary HTTP/1.1\r\nhost: a\r\n`, `GET http://a/salary HTTP/1.1\r\nhost: a\r\n`,
    ]) {
      await sends(`${head}\r\n`);
    }
    const reached = upstream.requests.filter(({ path }) => /salary/.test(path) && !/after-/.test(path));
    assert.ok(reached.every(({ headers }) => headers.some(([name]) => name === "cookie")), "nothing without a token");
  });

  fault("several cookie fields are one, over HTTP/1.1", async () => {
    const [token, other] = [mint(), mint()];
    const cookies = (...values) => ({ headers: values.map((value) => ["cookie", value]) });
    for (const gate of ["gate", "stop"]) {
      await passes(cookies("a=1", `id_token=${token}`, "b=2"), gate);
      await passes(cookies("a=1; c=3", `b=2; id_token=${token}`), gate);
      await passes(cookies(`id_token=${token}`, `id_token=${token}`), gate);
      await expect(envoy, gate, cookies(`id_token=${token}`, "a=1", `id_token=${other}`), 302, "token_ambiguous");
      await expect(envoy, gate, cookies(`id_token=${token}; id_token=${other}`), 302, "token_ambiguous");
    }
  });

  fault("several cookie fields are one, over HTTP/2", async () => {
    const [token, other] = [mint(), mint()];
    const asked = async (...values) => {
      const headers = { cookie: values, [REQUEST_ID]: randomUUID() };
      await requestH2(envoy.port("gate"), { path: "/salary", headers });
      const { code, reason } = await envoy.accessLog(headers[REQUEST_ID]);
      return `${code} ${reason}`;
    };
    assert.equal(await asked("a=1", `id_token=${token}`, "b=2"), "200 satisfied");
    assert.equal(await asked(`id_token=${token}`, "a=1", `id_token=${other}`), "302 token_ambiguous");
  });

  fault("a token in chunks, spread over cookie fields", async () => {
    const token = mint();
    const half = token.length >> 1;
    const chunks = [`id_token.0=${token.slice(0, half)}`, `id_token.1=${token.slice(half)}`];
    await passes({ headers: [["cookie", chunks.join("; ")]] });
    await passes({ headers: [["cookie", chunks[1]], ["cookie", chunks[0]]] });
    await expect(envoy, "gate", { headers: [["cookie", chunks[0]]] }, 302, "token_malformed");
    await refused({ headers: [["cookie", chunks[1]]] });
    await refused({ headers: [["cookie", `${chunks[0]}; id_token.2=${token.slice(half)}`]] });
    await refused({ headers: [["cookie", `${chunks.join("; ")}; id_token.4294967296=x; id_token.99999999999999999999=x`]] });
  });

  fault("huge cookies and tokens", async () => {
    await expect(envoy, "gate", { headers: [cookie("a".repeat(20_000))] }, 302, "token_malformed");
    await expect(envoy, "gate", { headers: [cookie(mint({ claims: { padding: "a".repeat(20_000) } }))] }, 302, "token_malformed");
    await expect(envoy, "gate", { headers: [["cookie", "a".repeat(200_000)]] }, 302, "token_missing");
    await passes({ headers: [cookie(mint()), ["cookie", `a=${"a".repeat(200_000)}`]] });
    const many = Array.from({ length: 20_000 }, (_, at) => `c${at}=v`).join("; ");
    await passes({ headers: [["cookie", many], cookie(mint())] });
    await passes({ headers: [cookie(mint({ claims: { padding: "a".repeat(8_000) } }))] });
  });

  const many = (count) => Array.from({ length: count }, (_, at) => [`x-header-${at}`, `value ${at}`]);

  fault("1,000 headers", async () => {
    for (const gate of ["gate", "stop"]) {
      const path = `/salary/${randomUUID()}`;
      await refused({ path, headers: many(1_000) }, gate);
      await passes({ path, headers: [...many(500), cookie(mint()), ...many(500)] }, gate);
      const [seen] = upstream.at(path);
      assert.equal(seen.headers.filter(([name]) => name.startsWith("x-header-")).length, 1_000);
      await expect(envoy, gate, { path: "/news", headers: many(1_000) }, 200, null);
    }
  });

  for (const [what, headers] of [
    ["1,100 headers", many(1_100)], // Envoy hands a filter no more than 1,024
    ["4,000 headers", many(4_000)],
    ["headers of more than 1 MiB", Array.from({ length: 20 }, (_, at) => [`x-long-${at}`, "v".repeat(60_000)])],
    ["one header of 2 MiB", [["x-long", "v".repeat(2 * MEBIBYTE)]]],
  ]) {
    fault(what, async () => {
      for (const gate of ["gate", "stop", "bearer"]) {
        const path = `/salary/${randomUUID()}`;
        await unforwarded({ path, headers }, gate);
        await unforwarded({ path, headers: [...NAVIGATION, ...headers, cookie(mint({ claims: { amr: ["pwd"] } }))] }, gate);
        await unforwarded({ method: "POST", path, headers, body: "x" }, gate);
        // With a good token, or away from every rule: whatever it is, it is answered.
        await ask(envoy, gate, { path: "/salary/good", headers: [cookie(mint()), ...headers] });
        await ask(envoy, gate, { path: "/news", headers });
      }
    });
  }

  fault("connections that are reset in the middle of a request", async () => {
    const token = mint();
    for (let round = 0; round < 20; round += 1) {
      const connection = await connect(envoy.port("gate"));
      connection.write(`POST /salary HTTP/1.1\r\nhost: a\r\ncookie: id_token=${token}\r\ncontent-length: 10\r\n\r\n123`);
      if (round % 2) await eventually(5_000, "the app has the headers", () => upstream.count > 0);
      connection.reset();
    }
  });

  /** The request is answered, and not by the app. */
  async function unforwarded(options, gate) {
    const { answer } = await ask(envoy, gate, options);
    assert.ok(answer.status >= 300, `status ${answer.status}`);
    assert.equal(upstream.at(options.path).length, 0, "the app sees nothing");
  }

  /** Sends bytes; what comes back, if anything, is no matter. */
  async function sends(bytes) {
    const connection = await connect(envoy.port("gate"));
    connection.write(Buffer.from(bytes, "latin1"));
    const status = await connection.answer("GET", 2_000).then((answer) => answer.status, () => undefined);
    connection.close();
    return status;
  }
});

const DEEP = 200_000;
const PROVIDER_FAULTS = {
  "status 500": provide.status(500),
  "status 404": provide.status(404),
  "status 204": provide.status(204),
  "an empty answer": provide.empty,
  "an endless answer": provide.endless(),
  "an endless, slow answer": provide.endless(20),
  "2 MiB too many": provide.huge(2 * MEBIBYTE),
  "40 MiB": provide.huge(40 * MEBIBYTE),
  "gzip": provide.gzip,
  "HTML": provide.html,
  "a truncated document": provide.truncated,
  "a reset in the middle": provide.reset,
  "a reset at once": provide.resetAtOnce,
  "a redirect": provide.redirect("/elsewhere"),
  "silence": provide.silent,
  "bytes that are no text": provide.binary,
  "null": provide.document("null"),
  "an empty object": provide.document("{}"),
  "an array": provide.document("[]"),
  "wrong types": provide.document('{"keys":{"0":1},"issuer":[],"jwks_uri":7}'),
  "keys of wrong types": provide.document('{"keys":[null,1,"x",[],{"kty":7},{"kty":"RSA"}],"issuer":null}'),
  "duplicate members": (response, text) => provide.document(`{"keys":[],"issuer":"x",${text.slice(1)}`)(response),
  "deep JSON": provide.document(`${"[".repeat(DEEP)}${"]".repeat(DEEP)}`),
};

describe("what providers answer", () => {
  let upstream;
  let envoy;
  const cases = [];

  before(async () => {
    upstream = await startUpstream();
    for (const fault of Object.values(PROVIDER_FAULTS)) {
      for (const [gate, path] of [[discoveringGate, METADATA], [fetchingGate, KEYS]]) {
        const provider = await startProvider({ keys: [signingKey().jwk] });
        provider.answers(path, fault);
        cases.push({ fault, gate, path, provider, name: `g${cases.length}` });
      }
    }
    const settings = { timeout: "1s", unknown_kid_cooldown: "1s", refresh: "2s" }; // and so at most 2 s between attempts
    envoy = await startEnvoy({
      listeners: [
        { name: "control", config: inlineGate() },
        ...cases.map(({ name, gate, provider }) => ({
          name,
          config: gate(provider, { provider: { ...settings, cluster: name } }),
        })),
      ],
      clusters: { app: upstream.port, ...Object.fromEntries(cases.map(({ name, provider }) => [name, provider.port])) },
    });
  });
  after(async () => {
    await envoy?.stop();
    await Promise.all(cases.map(({ provider }) => provider.stop()));
    await upstream?.stop();
  });

  describe("each fault, then a recovery", { concurrency: 6 }, () => {
    const names = Object.keys(PROVIDER_FAULTS).flatMap((fault) => [`metadata: ${fault}`, `keys: ${fault}`]);
    for (const [at, what] of names.entries()) {
      test(what, async () => {
        const { name, path, fault, provider } = cases[at];
        const token = providerToken(provider);
        const nobody = `/salary/${randomUUID()}`;

        // Before there are keys.
        const { answer, entry } = await ask(envoy, name, { path: nobody, headers: [cookie(token)] });
        assert.match(`${answer.status} ${entry.reason}`, /^(503 keys_unavailable|302 key_unknown)$/);
        assert.equal(upstream.at(nobody).length, 0, "the app sees nothing");
        await assertHealthy(envoy, "control", upstream);

        // The provider is well again.
        provider.answers(path, provide.normal);
        await recovers(envoy, name, upstream, token);

        // The same fault when there are keys already, and one is missing.
        if (path === METADATA) return;
        provider.answers(path, fault);
        const asked = provider.count(path);
        await eventually(10_000, "the key is looked for", async () => {
          const junk = providerToken(provider, { header: { kid: randomUUID() } });
          await expect(envoy, name, { headers: [cookie(junk)] }, 302, "key_unknown");
          return provider.count(path) > asked;
        });
        await assertHealthy(envoy, name, upstream, token);
      });
    }
  });

  test("every gate is healthy at the end, and the log is not flooded", async () => {
    for (const { name, provider } of cases) await assertHealthy(envoy, name, upstream, providerToken(provider));
    assert.ok(envoy.log.split("\n").length < 5_000, "the log is not flooded");
  });
});

const DEAD_ENDS = ["dead", "nowhere", "hollow"].flatMap((cluster) => [
  { cluster, endpoint: "keys", gate: fetchingGate },
  { cluster, endpoint: "metadata", gate: discoveringGate },
]);
const KINDS = { dead: "connection refused", nowhere: "no such cluster", hollow: "a cluster without endpoints" };

describe("clusters that lead nowhere", () => {
  let upstream;
  let envoy;
  const providers = [];

  before(async () => {
    upstream = await startUpstream();
    for (const _ of DEAD_ENDS) {
      const provider = await startProvider({ keys: [signingKey().jwk] });
      await provider.down();
      providers.push(provider);
    }
    envoy = await startEnvoy({
      listeners: [
        { name: "control", config: inlineGate() },
        ...DEAD_ENDS.map(({ cluster, endpoint, gate }, at) => ({
          name: `${cluster}-${endpoint}`,
          config: gate(providers[at], {
            provider: { cluster: cluster === "dead" ? `dead-${endpoint}` : cluster, timeout: "1s", refresh: "2s" },
          }),
        })),
      ],
      clusters: {
        app: upstream.port,
        "dead-keys": providers[0].port,
        "dead-metadata": providers[1].port,
        hollow: { type: "STATIC", load_assignment: { cluster_name: "hollow", endpoints: [] } },
      },
    });
  });
  after(async () => {
    await envoy?.stop();
    await Promise.all(providers.map((provider) => provider.stop()));
    await upstream?.stop();
  });

  for (const [at, { cluster, endpoint }] of DEAD_ENDS.entries()) {
    test(`${KINDS[cluster]}, ${endpoint}`, async () => {
      const [name, provider, path] = [`${cluster}-${endpoint}`, providers[at], `/salary/${cluster}-${endpoint}`];
      const headers = [cookie(providerToken(provider))];
      for (const connection of await envoy.connections(name)) {
        const answer = await expect(envoy, name, { connection, path, headers }, 503, "keys_unavailable");
        assert.match(answer.header("retry-after"), /^[1-9]\d*$/);
        await expect(envoy, name, { connection, path: "/news" }, 200, null);
        connection.close();
      }
      assert.equal(upstream.at(path).length, 0, "the app sees nothing");
      await envoy.until(failedFetches(endpoint));
      await assertHealthy(envoy, "control", upstream);

      if (cluster !== "dead") return;
      await provider.up();
      await recovers(envoy, name, upstream, providerToken(provider));
    });
  }

  test("the log is not flooded", () => {
    assert.ok(envoy.log.split("\n").length < 1_000);
  });
});

const FLAGS = { "flag not set": undefined, "flag off": false, "flag on": true };

for (const [what, allowOnHeadersStopIteration] of Object.entries(FLAGS)) {
  describe(`requests that are paused, ${what}`, () => {
    const bodies = {
      "a small body": { body: "hello" },
      "an empty body": { body: "" },
      "1 MiB": { body: randomBytes(MEBIBYTE) },
      // Above Envoy's buffer limit: see the last test for the flag.
      ...(allowOnHeadersStopIteration !== true && { "4 MiB": { body: randomBytes(4 * MEBIBYTE) } }),
      "chunks": { chunks: ["a", randomBytes(100_000), "b"] },
      "chunks and trailers": { chunks: ["a", "b"], trailers: [["x-trailer", "1"]] },
    };
    const bodiesH2 = {
      "HTTP/2, no body": {},
      "HTTP/2, a small body": { body: "hello" },
      "HTTP/2, a body and trailers": { body: "hello", trailers: { "x-trailer": "1" } },
      "HTTP/2, 1 MiB and trailers": { body: randomBytes(MEBIBYTE), trailers: { "x-trailer": "1" } },
    };

    let held;
    before(async () => {
      held = await startHeld(["whole", "failed", "refused", "gone-ok", "gone-failed", "gone-reset", "refetch", "large"], {
        allowOnHeadersStopIteration,
      });
    });
    after(() => held?.stop());

    test("reach the app whole once released, and not before", async (t) => {
      const { envoy, upstream } = held;
      const { name, provider, active, release } = held.gate("whole");
      const earlier = upstream.count;
      const asked = start(t, envoy.port(name), bodies, bodiesH2, cookie(providerToken(provider)));
      await envoy.until(active, asked.length);
      await envoy.until(`^http\\.${name}\\.downstream_cx_rx_bytes_total$`, 2 * MEBIBYTE);
      assert.equal(upstream.count, earlier, "the app sees nothing before");
      release();
      for (const { name: body, path, content, trailers, status } of asked) {
        assert.equal(await status, 200, body);
        const seen = await upstream.received(path);
        assert.equal(`${body}: ${seen.length} ${seen.digest}`, `${body}: ${content.length} ${digest(content)}`);
        assert.deepEqual({ ...seen.trailers }, trailers, body);
        assert.equal(upstream.at(path).length, 1, `${body}: once`);
      }
      await assertHealthy(envoy, name, upstream, providerToken(provider));
    });

    const ends = [
      ["failed", "a 503", provide.status(500), {}, [503]],
      ["refused", "a refusal", provide.normal, { amr: ["pwd"] }, [302, 303, 401]],
    ];
    for (const [gate, ending, behaviour, claims, expected] of ends) {
      test(`never reach the app when they end in ${ending}`, async (t) => {
        const { envoy, upstream } = held;
        const { name, provider, active, release } = held.gate(gate);
        const earlier = upstream.count;
        const asked = start(t, envoy.port(name), bodies, bodiesH2, cookie(providerToken(provider, { claims })));
        await envoy.until(active, asked.length);
        release(behaviour);
        for (const { name: body, status } of asked) {
          const given = await status;
          assert.ok(expected.includes(given), `${body}: ${given}`);
        }
        assert.equal(upstream.count, earlier);
        await held.recovers(gate);
      });
    }

    const fates = [
      ["gone-ok", "succeeds", provide.normal],
      ["gone-failed", "fails", provide.status(500)],
      ["gone-reset", "is reset", provide.resetAtOnce],
    ];
    for (const [gate, fate, behaviour] of fates) {
      test(`may be given up by the client while their fetch is out, which then ${fate}`, async (t) => {
        const { envoy, upstream } = held;
        const { name, provider, active, release } = held.gate(gate);
        const token = cookie(providerToken(provider));
        const path = `/salary/${gate}`;
        const session = await connectH2(envoy.port(name));
        t.after(() => session.close());
        const streams = Array.from({ length: 20 }, (_, at) =>
          session.open({ method: "POST", path, headers: { [token[0]]: token[1] }, ...(at % 2 && { body: "hello" }) }));
        const connections = await Promise.all(Array.from({ length: 10 }, () => connect(envoy.port(name))));
        for (const connection of connections) {
          connection.write(`POST ${path} HTTP/1.1\r\nhost: a\r\n${token.join(": ")}\r\ncontent-length: 10\r\n\r\n123`);
        }
        await envoy.until(active, streams.length + connections.length);
        streams.forEach((stream) => stream.reset());
        connections.forEach((connection) => connection.reset());
        await eventually(10_000, "all are gone", async () => (await envoy.sum(active)) === 0);

        const patient = ask(envoy, name, { path: `${path}-patient`, headers: [token] });
        await envoy.until(active, 1);
        release(behaviour);
        const { answer } = await patient;
        assert.equal(answer.status, fate === "succeeds" ? 200 : 503);
        await held.recovers(gate);
        assert.equal(upstream.at(path).length, 0);
      });
    }

    test("may be given up while their own refetch is out", async (t) => {
      const { envoy, upstream } = held;
      const { name, provider, active, release } = held.gate("refetch");
      release();
      await assertHealthy(envoy, name, upstream, providerToken(provider));
      const again = provider.holds(KEYS);
      const token = cookie(providerToken(provider, { header: { kid: "unknown" } }));
      const session = await connectH2(envoy.port(name));
      t.after(() => session.close());
      const path = "/salary/refetch";
      const stream = session.open({ method: "POST", path, headers: { [token[0]]: token[1] }, body: "hello" });
      await provider.requested(KEYS, 2);
      stream.reset();
      await eventually(10_000, "it is gone", async () => (await envoy.sum(active)) === 0);
      await assertHealthy(envoy, name, upstream, providerToken(provider));
      again.release();
      await assertHealthy(envoy, name, upstream, providerToken(provider));
      assert.equal(upstream.at(path).length, 0);
    });

    if (allowOnHeadersStopIteration !== true) return;

    // With the flag, Envoy asks the gate about the body while the headers are on hold. A gate can only have it
    // buffered, and Envoy itself answers 413 to a body above its buffer limit (1 MiB by default).
    test("reach the app whole or not at all, when their body is above the buffer limit", async () => {
      const { envoy, upstream } = held;
      const { name, provider, release } = held.gate("large");
      const [path, body] = ["/salary/large", randomBytes(4 * MEBIBYTE)];
      const asked = ask(envoy, name, { method: "POST", path, headers: [cookie(providerToken(provider))], body });
      await envoy.until(`^http\\.${name}\\.downstream_cx_rx_bytes_total$`, MEBIBYTE);
      assert.equal(upstream.at(path).length, 0);
      release();
      const { answer } = await asked;
      if (answer.status === 413) {
        assert.equal(upstream.at(path).length, 0);
      } else {
        assert.equal(answer.status, 200);
        assert.equal((await upstream.received(path)).digest, digest(body));
      }
      await assertHealthy(envoy, name, upstream, providerToken(provider));
    });
  });
}

// What is on hold ends in one callback of the host. Envoy carries out each answer from within the one before, on the
// VM's stack, wherever the answer is its own: too many in one go overflow it.
describe("a thousand requests on hold that end at once, on one worker", () => {
  const LIMIT = 1024; // how many a gate holds
  const LIMIT_BYTES = 16 * MEBIBYTE; // and of how many bytes
  const endings = [
    ["pass", 1_000, {}, provide.normal, { 200: 1_000 }],
    ["pass, where there are more than a gate holds", 1_500, {}, provide.normal, { 200: LIMIT, 503: 1_500 - LIMIT }],
    ["are refused", 1_000, { claims: { amr: ["pwd"] } }, provide.normal, { 302: 1_000 }],
    ["have a junk kid", 1_000, { header: { kid: "junk" } }, provide.normal, { 302: 1_000 }],
    ["get no keys", 1_000, {}, provide.status(500), { 503: 1_000 }],
  ];
  for (const [what, count, changes, behaviour, expected] of endings) {
    test(`that ${what}`, async (t) => {
      const held = await startHeld(["gate"], { concurrency: 1 });
      t.after(() => held.stop());
      const { provider, release } = held.gate("gate");
      await flood(t, held, { count, token: providerToken(provider, changes), release: () => release(behaviour), expected });
      await held.recovers("gate");
    });
  }

  test("that waited for the refetch of a junk kid", async (t) => {
    const held = await startHeld(["gate"], { concurrency: 1 });
    t.after(() => held.stop());
    const { provider, release } = held.gate("gate");
    release();
    await held.recovers("gate");
    const again = provider.holds(KEYS);
    const token = providerToken(provider, { header: { kid: "junk" } });
    await flood(t, held, { count: 1_000, token, release: again.release, expected: { 302: 1_000 } });
    await held.recovers("gate");
  });

  test("that have large heads, which are more bytes than a gate holds", async (t) => {
    const held = await startHeld(["gate"], { concurrency: 1 });
    t.after(() => held.stop());
    const { provider, release } = held.gate("gate");
    const referer = `https://app.example.com/${"r".repeat(50_000)}`;
    const places = Math.floor(LIMIT_BYTES / (51 * KIBIBYTE));
    const expected = (tally) => {
      assert.equal(tally[200] + tally[503], 500);
      assert.ok(tally[200] >= places && tally[200] <= LIMIT_BYTES / 50_000, `${tally[200]} of 500 were held`);
    };
    await flood(t, held, { count: 500, limit: places, token: providerToken(provider), headers: { referer }, release, expected });
    await held.recovers("gate");
  });

  async function flood(t, held, { count, limit = LIMIT, token, headers = {}, release, expected }) {
    const { envoy, upstream } = held;
    const { name, active } = held.gate("gate");
    const path = `/salary/${randomUUID()}`;
    const [field, value] = cookie(token);
    const asked = [];
    while (asked.length < count) {
      const session = await connectH2(envoy.port(name));
      t.after(() => session.close());
      for (let stream = 0; stream < 50; stream += 1) asked.push(statusOf(session.request({ path, headers: { [field]: value, ...headers } })));
    }
    await envoy.until(`^http\\.${name}\\.downstream_rq_total$`, count);
    await envoy.until(active, Math.min(count, limit));
    release();
    const tally = {};
    for (const status of await Promise.all(asked)) tally[status] = (tally[status] ?? 0) + 1;
    envoy.assertNoTrap();
    if (typeof expected === "function") expected(tally);
    else assert.deepEqual(tally, expected);
    assert.equal(upstream.at(path).length, tally[200] ?? 0);
  }
});

/**
 * One Envoy with gates whose keys do not come before their `release(behaviour)`: then every one of their requests for
 * keys is answered so.
 */
async function startHeld(names, { allowOnHeadersStopIteration, concurrency } = {}) {
  const upstream = await startUpstream();
  const gates = new Map();
  for (const name of names) {
    const provider = await startProvider({ keys: [signingKey().jwk] });
    const released = deferred();
    provider.answers(KEYS, async (...exchange) => (await released.promise)(...exchange));
    const release = (behaviour = provide.normal) => {
      provider.answers(KEYS, behaviour);
      released.resolve(behaviour);
    };
    gates.set(name, { name, provider, release, active: `^http\\.${name}\\.downstream_rq_active$` });
  }
  const envoy = await startEnvoy({
    concurrency,
    listeners: names.map((name) => ({
      name,
      allowOnHeadersStopIteration,
      config: fetchingGate(gates.get(name).provider, { provider: { cluster: name, timeout: "60s" } }),
    })),
    clusters: { app: upstream.port, ...Object.fromEntries(names.map((name) => [name, gates.get(name).provider.port])) },
  });
  await Promise.all(names.map((name) => gates.get(name).provider.requested(KEYS, 1)));
  return {
    envoy,
    upstream,
    gate: (name) => gates.get(name),

    /** The provider is well, and good requests pass again, on every worker. */
    async recovers(name) {
      const { provider } = gates.get(name);
      provider.answers(KEYS, provide.normal);
      await recovers(envoy, name, upstream, providerToken(provider));
    },

    async stop() {
      await envoy.stop();
      await Promise.all(names.map((name) => gates.get(name).provider.stop()));
      await upstream.stop();
    },
  };
}

/** Sends a request with each of the bodies, each on a connection of its own. */
function start(t, port, bodies, bodiesH2, [field, value]) {
  const send = async (open, headers, message) => {
    const connection = await open(port);
    t.after(() => connection.close());
    return connection.request({ ...message, headers });
  };
  const exchange = (name, message, open, headers) => {
    const { body = "", chunks = [body], trailers = {} } = message;
    const path = `/salary/${randomUUID()}`;
    return {
      name,
      path,
      content: Buffer.concat(chunks.map((chunk) => Buffer.from(chunk))),
      trailers: Array.isArray(trailers) ? Object.fromEntries(trailers) : trailers,
      status: statusOf(send(open, headers, { method: "POST", path, ...message })),
    };
  };
  return [
    ...Object.entries(bodies).map(([name, message]) => exchange(name, message, connect, [[field, value]])),
    ...Object.entries(bodiesH2).map(([name, message]) => exchange(name, message, connectH2, { [field]: value })),
  ];
}

/** The status of an answer, or why there is none. */
async function statusOf(answer) {
  try {
    return (await answer).status;
  } catch (error) {
    return error.message;
  }
}
