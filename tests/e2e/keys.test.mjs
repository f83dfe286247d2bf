// The provider's keys in real Envoy with two workers: fetched once for all of them, never a reason to pause traffic,
// kept through an outage, and never taken from a provider that is not the configured one.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { startEnvoy } from "./support/envoy.mjs";
import {
  ask, assertHealthy, cookie, decisions, discoveringGate, expect, failedFetches, fetches, fetchingGate, providerToken,
} from "./support/gate.mjs";
import { KEYS, METADATA, normal, silent, startProvider, status } from "./support/provider.mjs";
import { mint, signingKey } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const GATES = { discovery: discoveringGate, jwks_uri: fetchingGate };

for (const [how, gate] of Object.entries(GATES)) {
  describe(`keys by ${how}`, { concurrency: 3 }, () => {
    test("one fetch serves all workers, ahead of any request", async (t) => {
      const { envoy, provider, upstream } = await setUp(t, gate);
      await envoy.until(fetches("keys", "ok"));
      await assertHealthy(envoy, "gate", upstream, providerToken(provider));
      await assertHealthy(envoy, "gate", upstream, providerToken(provider));
      assert.equal(provider.count(KEYS), 1);
      assert.equal(provider.count(METADATA), how === "discovery" ? 1 : 0);
      assert.equal(await envoy.sum(fetches("keys", "ok")), 1);
    });

    test("requests that come before the keys wait for them, on every worker, and pass", async (t) => {
      const { envoy, provider, upstream, held } = await setUp(t, gate, { hold: how === "discovery" ? METADATA : KEYS });
      await provider.requested(how === "discovery" ? METADATA : KEYS, 1);
      const connections = await workers(t, envoy);
      const asked = connections.flatMap((connection) => [
        expect(envoy, "gate", { connection, headers: [cookie(providerToken(provider))] }, 200, "satisfied"),
        expect(envoy, "gate", { headers: [cookie(providerToken(provider))] }, 200, "satisfied"),
      ]);
      await envoy.until("^http\\.gate\\.downstream_rq_active$", asked.length);
      assert.equal(upstream.count, 0, "the app sees nothing yet");
      held.release();
      await Promise.all(asked);
      assert.equal(upstream.count, asked.length);
      assert.equal(provider.count(KEYS), 1, "one fetch for all who waited");
      await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    });

    test("an unprotected path does not wait", async (t) => {
      const { envoy, provider, held } = await setUp(t, gate, { hold: how === "discovery" ? METADATA : KEYS });
      await expect(envoy, "gate", { path: "/news" }, 200, null);
      held.release();
      await envoy.until(fetches("keys", "ok"));
      assert.equal(provider.count(KEYS), 1);
    });

    test("503 with Retry-After while the provider stays silent, then back to normal", async (t) => {
      const silentAt = how === "discovery" ? METADATA : KEYS;
      const { envoy, provider, upstream } = await setUp(t, gate, { provider: { timeout: "1s" }, at: [silentAt, silent] });
      const asked = Date.now();
      const connections = await workers(t, envoy);
      for (const answer of await Promise.all(connections.map((connection) =>
        expect(envoy, "gate", { connection, headers: [cookie(providerToken(provider))] }, 503, "keys_unavailable")))) {
        assert.match(answer.header("retry-after"), /^[1-9]\d*$/);
      }
      assert.ok(Date.now() - asked < 8_000, "the wait is bounded by `timeout`");
      assert.equal(upstream.count, 0);
      provider.answers(silentAt, normal);
      await recovers(envoy, provider);
      await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    });
  });
}

describe("keys, later", { concurrency: 4 }, () => {
  test("the last good keys serve through an outage, and the next good answer is taken", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate, { provider: { refresh: "1s", timeout: "1s" } });
    await envoy.until(fetches("keys", "ok"));
    await provider.down();
    await envoy.until(failedFetches("keys"), 2, 15_000);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));

    await provider.up();
    provider.answers(KEYS, status(500));
    const seen = provider.count(KEYS);
    await provider.requested(KEYS, seen + 2, 20_000);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));

    provider.answers(KEYS, normal);
    const good = await envoy.sum(fetches("keys", "ok"));
    await envoy.until(fetches("keys", "ok"), good + 1, 20_000);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  });

  test("a refresh in the background does not pause traffic", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate, { provider: { refresh: "1s", timeout: "30s" } });
    await envoy.until(fetches("keys", "ok"));
    const first = provider.count(KEYS);
    const held = provider.holds(KEYS);
    await provider.requested(KEYS, first + 1);
    const asked = Date.now();
    for (let round = 0; round < 5; round += 1) await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    assert.ok(Date.now() - asked < 20_000, "nothing waited for the refresh");
    held.release();
    await envoy.until(fetches("keys", "ok"), 2);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  });

  test("two workers refresh once per interval, not twice", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate, { provider: { refresh: "1s" } });
    await envoy.until(fetches("keys", "ok"));
    const [start, earlier] = [Date.now(), provider.count(KEYS)];
    await provider.requested(KEYS, earlier + 4, 15_000);
    const intervals = (Date.now() - start) / 1000;
    assert.ok(provider.count(KEYS) - earlier <= intervals + 2, `${provider.count(KEYS) - earlier} fetches in ${intervals} s`);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  });

  test("keys older than max_stale serve no more, until the provider is back", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate, {
      provider: { refresh: "1s", max_stale: "3s", timeout: "1s" },
    });
    await envoy.until(fetches("keys", "ok"));
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    provider.answers(KEYS, status(503));
    const connections = await workers(t, envoy);
    for (const connection of connections) {
      await eventually(15_000, "the keys are too stale", async () => {
        const { answer, entry } = await ask(envoy, "gate", { connection, headers: [cookie(providerToken(provider))] });
        return answer.status === 503 && entry.reason === "keys_unavailable";
      });
      const before = upstream.count;
      const headers = [cookie(providerToken(provider))];
      const answer = await expect(envoy, "gate", { connection, headers }, 503, "keys_unavailable");
      assert.match(answer.header("retry-after"), /^[1-9]\d*$/);
      assert.equal(upstream.count, before);
    }
    assert.ok((await envoy.sum(decisions("unavailable", "keys_unavailable"))) >= 2);
    provider.answers(KEYS, normal);
    await recovers(envoy, provider);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  });

  test("rotation: an unknown kid is looked for once, and holds nobody else", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate);
    await envoy.until(fetches("keys", "ok"));
    const connections = await workers(t, envoy);
    const [fresh, old] = [signingKey("RS256", "2"), providerToken(provider)];
    provider.keys = [fresh.jwk, ...provider.keys];
    const held = provider.holds(KEYS);
    const path = "/salary/rotated";
    const rotated = (connection) =>
      expect(envoy, "gate", { connection, path, headers: [cookie(providerToken(provider, { key: fresh }))] }, 200, "satisfied");

    const waiting = rotated(connections[0]);
    await provider.requested(KEYS, 2);
    await assertHealthy(envoy, "gate", upstream, old);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    assert.equal(upstream.at(path).length, 0, "the one with the unknown kid is still held");
    held.release();
    await waiting;
    for (const connection of connections) await rotated(connection);
    await assertHealthy(envoy, "gate", upstream, old);
    assert.equal(provider.count(KEYS), 2, "one refetch for both workers");
  });

  test("rotation: both workers meet the new kid at once, one fetch serves both", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    const connections = await workers(t, envoy);
    const fresh = signingKey("RS256", "2");
    provider.keys = [fresh.jwk];
    const held = provider.holds(KEYS);
    const waiting = connections.map((connection) =>
      expect(envoy, "gate", { connection, headers: [cookie(providerToken(provider, { key: fresh }))] }, 200, "satisfied"));
    await provider.requested(KEYS, 2);
    await envoy.until("^http\\.gate\\.downstream_rq_active$", connections.length);
    held.release();
    await Promise.all(waiting);
    assert.equal(provider.count(KEYS), 2);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider, { key: fresh }));
  });

  test("a flood of junk kids costs one fetch per cooldown, and nobody else notices", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate);
    await envoy.until(fetches("keys", "ok"));
    const connections = await workers(t, envoy);
    let number = 0;
    const junk = () => {
      number += 1;
      return providerToken(provider, { header: { kid: `junk-${number}` } });
    };
    const flood = connections.map(async (connection) => {
      for (let count = 0; count < 100; count += 1) {
        await expect(envoy, "gate", { connection, headers: [cookie(junk())] }, 302, "key_unknown");
      }
    });
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    await Promise.all(flood);
    assert.ok(provider.count(KEYS) <= 2, `${provider.count(KEYS)} fetches: the first, and one for the junk`);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  });

  test("a flood of junk kids while the provider is silent holds at most one refetch's time, then fails fast", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, fetchingGate, { provider: { timeout: "1s" } });
    await envoy.until(fetches("keys", "ok"));
    const connections = await workers(t, envoy);
    provider.answers(KEYS, silent);
    const started = Date.now();
    await Promise.all(connections.map(async (connection) => {
      for (let count = 0; count < 25; count += 1) {
        const headers = [cookie(providerToken(provider, { header: { kid: `junk-${Math.random()}` } }))];
        await expect(envoy, "gate", { connection, headers }, 302, "key_unknown");
      }
    }));
    const elapsed = Date.now() - started;
    assert.ok(elapsed < 10_000, "only the first one waits, not 25 in a row");
    // The failed refetch is tried again in the background, after a second and then less and less often.
    assert.ok(provider.count(KEYS) <= 2 + elapsed / 1_000, `${provider.count(KEYS)} fetches in ${elapsed} ms`);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  });

  test("after the cooldown a new key is found, on every worker, also where it was asked for meanwhile", async (t) => {
    const { envoy, provider, upstream, one, two, fresh } = await rotatedAfterJunk(t, "2s");
    const headers = [cookie(providerToken(provider, { key: fresh }))];
    for (const connection of [two, one]) await expect(envoy, "gate", { connection, headers }, 302, "key_unknown");
    assert.equal(provider.count(KEYS), 2, "the cooldown holds for both workers");
    for (const connection of [one, two]) {
      await eventually(6_000, "the new key is found", async () => {
        const { answer } = await ask(envoy, "gate", { connection, headers });
        return answer.status === 200;
      });
    }
    assert.equal(provider.count(KEYS), 3, "one refetch for both");
    await assertHealthy(envoy, "gate", upstream, providerToken(provider, { key: fresh }));
  });

  test("a worker that first catches up with an older refetch still looks for its own kid", async (t) => {
    const { envoy, provider, upstream, one, two, fresh } = await rotatedAfterJunk(t, "1s");
    await pause(1_500); // the cooldown
    const headers = [cookie(providerToken(provider, { key: fresh }))];
    await expect(envoy, "gate", { connection: two, headers }, 200, "satisfied");
    await expect(envoy, "gate", { connection: one, headers }, 200, "satisfied");
    assert.equal(provider.count(KEYS), 3);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider, { key: fresh }));
  });

  test("metadata of another issuer is never used", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, discoveringGate, {
      metadata: { issuer: "https://evil.example/" },
      provider: { timeout: "1s" },
    });
    await provider.requested(METADATA, 1);
    for (const claims of [{}, { iss: "https://evil.example/" }]) {
      const headers = [cookie(providerToken(provider, { claims }))];
      const answer = await expect(envoy, "gate", { headers }, 503, "keys_unavailable");
      assert.equal(answer.header("location"), undefined);
    }
    // Nor is its authorize URL: without metadata there is nowhere to send the browser.
    const { answer } = await ask(envoy, "gate");
    assert.equal(answer.status, 503);
    assert.equal(provider.count(KEYS), 0, "its keys are not even asked for");
    assert.equal(upstream.count, 0);
    provider.metadata = {};
    await recovers(envoy, provider);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  });

  test("metadata that turns bad later does not replace the good", async (t) => {
    const { envoy, provider, upstream } = await setUp(t, discoveringGate, { provider: { refresh: "1s", timeout: "1s" } });
    await envoy.until(fetches("keys", "ok"));
    provider.metadata = { issuer: "https://evil.example/", authorization_endpoint: "https://evil.example/authorize" };
    const seen = provider.count(METADATA);
    await provider.requested(METADATA, seen + 2, 15_000);
    await assertHealthy(envoy, "gate", upstream, providerToken(provider));
    const answer = await expect(envoy, "gate", {}, 302, "token_missing");
    assert.ok(answer.header("location").startsWith(`${provider.issuer}authorize?`));
  });

  test("two gates on one provider in one Envoy do not mix", async (t) => {
    const other = signingKey("RS256", "2");
    const one = await startProvider({ keys: [signingKey().jwk] });
    const two = await startProvider({ keys: [other.jwk] });
    const upstream = await startUpstream();
    t.after(() => Promise.all([one.stop(), two.stop(), upstream.stop()]));
    const envoy = await startEnvoy({
      listeners: [
        { name: "one", config: discoveringGate(one) },
        { name: "two", config: discoveringGate(two, { provider: { cluster: "other" } }) },
      ],
      clusters: { app: upstream.port, idp: one.port, other: two.port },
    });
    t.after(() => envoy.stop());
    const foreign = providerToken(two, { key: other });
    await assertHealthy(envoy, "one", upstream, providerToken(one));
    await assertHealthy(envoy, "two", upstream, foreign);
    await expect(envoy, "one", { headers: [cookie(foreign)] }, 302, "key_unknown");
    const forged = mint({ key: { ...other, kid: signingKey().kid }, claims: { iss: one.issuer } });
    await expect(envoy, "one", { headers: [cookie(forged)] }, 302, "signature_invalid");
    await assertHealthy(envoy, "one", upstream, providerToken(one));
  });
});

/** An app, a provider and an Envoy with one gate, which end with the test. */
async function setUp(t, gate, { provider: settings, metadata = {}, hold, at } = {}) {
  const upstream = await startUpstream();
  t.after(() => upstream.stop());
  const provider = await startProvider({ keys: [signingKey().jwk] });
  t.after(() => provider.stop());
  provider.metadata = metadata;
  if (at) provider.answers(...at);
  const held = hold && provider.holds(hold);
  const envoy = await startEnvoy({
    listeners: [{ name: "gate", config: gate(provider, { provider: settings }) }],
    clusters: { app: upstream.port, idp: provider.port },
  });
  t.after(() => envoy.stop());
  return { envoy, provider, upstream, held };
}

/** A connection to each worker, for the time of the test. */
async function workers(t, envoy) {
  const connections = await envoy.connections("gate");
  t.after(() => connections.forEach((connection) => connection.close()));
  return connections;
}

/** A gate that has just refetched for a junk kid, on worker `one`, when the provider rotates its keys to `fresh`. */
async function rotatedAfterJunk(t, cooldown) {
  const { envoy, provider, upstream } = await setUp(t, fetchingGate, { provider: { unknown_kid_cooldown: cooldown } });
  const [one, two] = await workers(t, envoy);
  await assertHealthy(envoy, "gate", upstream, providerToken(provider));
  const junk = providerToken(provider, { header: { kid: "junk" } });
  await expect(envoy, "gate", { connection: one, headers: [cookie(junk)] }, 302, "key_unknown");
  assert.equal(provider.count(KEYS), 2);
  const fresh = signingKey("RS256", "2");
  provider.keys = [fresh.jwk];
  return { envoy, provider, upstream, one, two, fresh };
}

/** Waits until a good request passes again. */
async function recovers(envoy, provider) {
  await eventually(20_000, "the gate has recovered", async () => {
    const { answer } = await ask(envoy, "gate", { headers: [cookie(providerToken(provider))] });
    return answer.status === 200;
  });
}
