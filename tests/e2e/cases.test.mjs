// The decision cases of tests/cases/*.json through the module in real Envoy. They must be decided as in the library.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { check, checkPosts, expanded, message } from "./support/cases.mjs";
import { REQUEST_ID, startEnvoy } from "./support/envoy.mjs";
import { ask } from "./support/gate.mjs";
import { DOCUMENTS, startReplies } from "./support/replies.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const { cases } = await expanded();
const listenerOf = grouped(cases.filter(({ skip }) => !skip.envoy));
const listeners = [...new Set(listenerOf.values())];

describe("decision cases", () => {
  let upstream;
  let idle;
  let envoy;

  before(async () => {
    upstream = await startUpstream();
    idle = await startReplies({});
    const clusters = { app: upstream.port, idp: idle.port };
    for (const listener of listeners.filter(({ replies }) => replies)) {
      listener.provider = await startReplies(listener.replies);
      clusters[listener.name] = listener.provider.port;
    }
    envoy = await startEnvoy({
      listeners: listeners.map(({ name, config }) => ({ name, config, ...bodies(config) })),
      clusters,
      // With one worker, a reply has arrived at the gate as soon as Envoy has counted it.
      concurrency: 1,
      extraHcm: {
        max_request_headers_kb: 96,
        http_protocol_options: { enable_trailers: true, allow_custom_methods: true },
        common_http_protocol_options: { max_headers_count: 2_000 },
      },
    });
    await fetched(envoy);
  });
  after(async () => {
    await envoy?.stop();
    await Promise.all(listeners.map(({ provider }) => provider?.stop()));
    await idle?.stop();
    await upstream?.stop();
  });

  describe("one by one", { concurrency: 8 }, () => {
    for (const one of cases) {
      test(one.name, { skip: one.skip.envoy }, async () => {
        const { name, provider = idle } = listenerOf.get(one);
        const { answer, entry } = await ask(envoy, name, message(one.request));
        const seen = upstream.requests.filter((request) =>
          request.headers.some(([field, value]) => field === REQUEST_ID && value === entry.id));
        check(one, answer, entry.reason ?? "not_protected", seen);
        if (seen.length === 0) {
          assert.equal(entry.details, `stepgate_${one.expect.reason}`);
        } else {
          assert.doesNotMatch(entry.details, /stepgate/);
          if (one.request.path.startsWith("/")) assert.equal(seen[0].path, one.request.path, "the app sees the path as it came");
        }
        checkPosts(one, provider.posts);
      });
    }
  });

  test("the counters tell the same", async () => {
    const expected = new Map();
    for (const { expect: { decision, reason } } of cases.filter(({ skip }) => !skip.envoy)) {
      const counter = `wasmcustom.stepgate_decisions.decision=${decision}.reason=${reason}`;
      expected.set(counter, (expected.get(counter) ?? 0) + 1);
    }
    const counted = await envoy.stats("^wasmcustom\\.stepgate_decisions");
    assert.deepEqual(Object.fromEntries([...counted].sort()), Object.fromEntries([...expected].sort()));
    envoy.assertNoTrap();
  });
});

/** Each case's listener: one for all cases of a configuration, but one for each case with a provider, since fetches leave traces. */
function grouped(cases) {
  const listeners = new Map();
  const listenerOf = new Map();
  for (const one of cases) {
    const fetches = Object.keys(one.replies).length > 0;
    const key = fetches ? one.name : JSON.stringify(one.config);
    if (!listeners.has(key)) {
      const name = `cases-${listeners.size}`;
      listeners.set(key, fetches ? fetching(name, one) : { name, config: one.config });
    }
    listenerOf.set(one, listeners.get(key));
  }
  return listenerOf;
}

/** A listener whose gate fetches from a provider of its own, and does not wait long for it. */
function fetching(name, { config, replies }) {
  return { name, replies, config: { ...config, provider: { timeout: "500ms", ...config.provider, cluster: name } } };
}

/** What a listener needs where the gate reads a form. */
function bodies({ callback }) {
  return callback?.response_mode === "form_post" ? { allowOnHeadersStopIteration: true } : {};
}

/** Waits until every gate has what its provider tells it at first. */
async function fetched(envoy) {
  const asking = listeners.filter(({ provider }) => provider);
  await Promise.all(asking.map(({ provider }) => provider.asked()));
  const answers = ({ replies }) =>
    DOCUMENTS.filter((document) => document in replies && !replies[document][0].failure).length;
  await eventually(10_000, "the gates have the first replies", async () => {
    const stats = await envoy.stats("^cluster\\.cases-\\d+\\.upstream_rq_completed$");
    return asking.every((listener) => stats.get(`cluster.${listener.name}.upstream_rq_completed`) >= answers(listener));
  });
}
