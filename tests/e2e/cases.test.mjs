// The decision cases of tests/cases/*.json through the module in real Envoy. They must be decided as in the library.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { Tally, assertRefused, check, checkPosts, expanded, expandedAt, message } from "./support/cases.mjs";
import { REQUEST_ID, extension, startEnvoy } from "./support/envoy.mjs";
import { ask } from "./support/gate.mjs";
import { request } from "./support/http.mjs";
import { DOCUMENTS, startReplies } from "./support/replies.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const { cases } = await expanded();

/** Why a case is not run as it stands: what Envoy refuses is handed to the gate, what hangs on a second is sent in that second. */
const isRefused = ({ skip: { envoy = "" } }) => /^Envoy('s HTTP\/1 codec| itself) refuses /.test(envoy);
const isTimed = ({ skip: { envoy = "" } }) => envoy.endsWith("a real clock moves on");
const isAbsent = (one) => (one.skip.envoy && !isRefused(one) && !isTimed(one)) || isCut(one);
/** Lua's way to Envoy's fields ends at such a byte. */
const isCut = (one) => isRefused(one) && [one.request.path, one.request.authority].some((text) => text.includes("\0"));

/** Puts what Envoy would have refused in the place of what it has accepted: fields that are named so, in hexadecimal. */
const SUBSTITUTE = extension("filters.http.lua.v3.Lua", "substitute", {
  default_source_code: {
    inline_string: `
      local fields = { ["x-test-path"] = ":path", ["x-test-authority"] = ":authority", ["x-test-cookie"] = "cookie" }
      function envoy_on_request(request)
        local headers = request:headers()
        for name, field in pairs(fields) do
          local hex = headers:get(name)
          if hex ~= nil then
            headers:remove(name)
            headers:replace(field, (hex:sub(2):gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)))
          end
        end
      end`,
  },
});

/** A request whose path, host and cookies stand in such fields. */
function disguised({ path, host, headers, ...rest }) {
  const hex = (text) => `=${Buffer.from(text, "latin1").toString("hex")}`;
  const [cookies, others] = [true, false].map((is) => headers.filter(([name]) => (name === "cookie") === is));
  const substitutes = [["x-test-path", hex(path)], ["x-test-authority", hex(host)], ...cookies.map(([, value]) => ["x-test-cookie", hex(value)])];
  return { ...rest, headers: [...others, ...substitutes] };
}

const listenerOf = grouped(cases.filter((one) => !one.skip.envoy || isRefused(one)));
const listeners = [...new Set(listenerOf.values())];

describe("decision cases", () => {
  let upstream;
  let idle;
  let envoy;
  const tally = new Tally();

  before(async () => {
    upstream = await startUpstream();
    idle = await startReplies({});
    const clusters = { app: upstream.port, idp: idle.port };
    for (const listener of listeners.filter(({ replies }) => replies)) {
      listener.provider = await startReplies(listener.replies);
      clusters[listener.name] = listener.provider.port;
    }
    envoy = await startEnvoy({
      listeners: listeners.map(({ name, config, before }) => ({ name, config, before, ...bodies(config) })),
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

  const seenOf = (id) => upstream.requests.filter(({ headers }) =>
    headers.some(([field, value]) => field === REQUEST_ID && value === id));

  function assertDecided(one, { answer, entry }, posts) {
    const seen = seenOf(entry.id);
    check(one, answer, entry.reason ?? "not_protected", seen);
    if (seen.length === 0) {
      assert.equal(entry.details, `stepgate_${one.expect.reason}`);
    } else {
      assert.doesNotMatch(entry.details, /stepgate/);
      if (one.request.path.startsWith("/")) assert.equal(seen[0].path, one.request.path, "the app sees the path as it came");
    }
    checkPosts(one, posts);
  }

  describe("one by one", { concurrency: 8 }, () => {
    for (const one of cases.filter((one) => !isTimed(one))) {
      test(one.name, { skip: isAbsent(one) && !isRefused(one) && one.skip.envoy }, async () => {
        const { name, provider = idle } = listenerOf.get(one);
        const sent = message(one.request);
        if (isRefused(one)) {
          const id = randomUUID();
          await assertRefused(request(envoy.port(name), { ...sent, headers: [...sent.headers, [REQUEST_ID, id]] }), () => seenOf(id));
          if (isCut(one)) return;
          assertDecided(one, await ask(envoy, name, { path: "/", ...disguised(sent) }), provider.posts);
          tally.agrees(one, "handed over: refused by Envoy before the gate");
        } else {
          assertDecided(one, await ask(envoy, name, sent), provider.posts);
          tally.agrees(one, "as sent");
        }
      });
    }
  });

  test("the counters tell the same: no gate has seen what Envoy refuses", async () => {
    const expected = new Map();
    for (const one of [...listenerOf.keys()].filter((one) => !isCut(one))) {
      const { decision, reason } = one.expect;
      const counter = `wasmcustom.stepgate_decisions.decision=${decision}.reason=${reason}`;
      expected.set(counter, (expected.get(counter) ?? 0) + 1);
    }
    const counted = await envoy.stats("^wasmcustom\\.stepgate_decisions");
    assert.deepEqual(Object.fromEntries([...counted].sort()), Object.fromEntries([...expected].sort()));
    envoy.assertNoTrap();
  });

  test("what hangs on a second, within that second", async (t) => {
    // How long a second must be ahead for everything to be ready for it.
    for (let ahead = 4; ; ahead *= 2) {
      assert.ok(ahead < 60, "this machine is too busy");
      const second = Math.floor(Date.now() / 1000) + ahead;
      const timed = (await expandedAt(second)).filter(isTimed);
      const at = grouped(timed);
      const gates = [...new Set(at.values())].map(({ name, config }) => ({ name, config }));
      const timekeeper = await startEnvoy({ listeners: gates, clusters: { app: upstream.port, idp: idle.port }, concurrency: 1 });
      try {
        const early = second * 1000 - Date.now();
        await pause(Math.max(0, early + 50));
        const told = await Promise.all(timed.map((one) => ask(timekeeper, at.get(one).name, message(one.request))));
        if (early < 0 || Date.now() >= (second + 1) * 1000) continue;
        for (const [index, one] of timed.entries()) {
          await t.test(one.name, () => {
            assertDecided(one, told[index], idle.posts);
            tally.agrees(one, "in their second");
          });
        }
        return;
      } finally {
        await timekeeper.stop();
      }
    }
  });

  test("every case has been decided", (t) => {
    const absent = cases.filter(isAbsent);
    const reasons = new Set(absent.map(({ skip }) => skip.envoy));
    t.diagnostic(`Envoy: ${tally.assertComplete(cases, absent)}: ${[...reasons].join("; ")}`);
  });
});

/** Each case's listener: one for all cases of a configuration, but one for each case with a provider, since fetches leave traces. */
function grouped(cases) {
  const listeners = new Map();
  const listenerOf = new Map();
  for (const one of cases) {
    const fetches = Object.keys(one.replies).length > 0;
    const key = fetches ? one.name : JSON.stringify([one.config, isRefused(one)]);
    if (!listeners.has(key)) {
      const name = `cases-${listeners.size}`;
      const before = isRefused(one) ? [SUBSTITUTE] : [];
      listeners.set(key, fetches ? fetching(name, one) : { name, config: one.config, before });
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
