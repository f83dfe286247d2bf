// The decision cases of tests/cases/*.json through the package in workerd, Deno and Node. They must be decided as in the library.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { createGate, protect, proxy } from "../../dist/edge/node.js";
import { answer } from "../../dist/edge/web.js";
import { startCases } from "./edge/cases.js";
import { Tally, assertRefused, check, checkPosts, expanded, message } from "./support/cases.mjs";
import { startDeno, startWorkerd } from "./support/edge.mjs";
import { REQUEST_ID } from "./support/envoy.mjs";
import { Answer, request } from "./support/http.mjs";
import { startReplies } from "./support/replies.mjs";
import { startUpstream } from "./support/upstream.mjs";

const { now, cases } = await expanded();
const numbers = new Map();

const here = (file) => fileURLToPath(new URL(`edge/${file}`, import.meta.url));

/** What comes of a request on its way to a gate that never sees it so. Each of these cases is then handed to the gate. */
const REFUSED = "refused by the runtime before the gate";
const AMBIGUOUS = "ambiguous in the runtime's form, and refused by the gate";
const ANOTHER = "another request in the runtime's form";
const UNSENT = "nothing that could be sent";

const UNREADABLE = { outcome: UNSENT, names: [/^forward\/(a|such a) host/] };
const NO_SLASH = [/^paths\/no leading slash$/];
const HOST_WITH_PATH = [/^rules\/hosts: a path in it$/];
const REQUEST_LINE = [/^paths\/(a raw (tab|newline|NUL|DEL)|no path at all)$/];
const CONNECT = [/^paths\/CONNECT has no path$/];
const CONTROL = [/^cookies\/a control character$/];
const METHODS = [/^rules\/methods: (every one by default: one that nobody knows|lower case)$/];

/**
 * How each runtime is started; and which cases cannot come to the gate over the wire. `joinsCookies`: it joins several cookie
 * fields with a comma, so they are sent in one.
 */
const RUNTIMES = {
  workerd: {
    start: startWorker,
    joinsCookies: true,
    without: [
      UNREADABLE,
      // It makes one URL of host and target, so that what is path cannot be known.
      { outcome: AMBIGUOUS, names: HOST_WITH_PATH },
      { outcome: ANOTHER, names: NO_SLASH },
      { outcome: REFUSED, names: [...REQUEST_LINE, ...CONNECT, ...METHODS, /^rules\/hosts: (bytes that are not ASCII|none)$/] },
    ],
  },
  Deno: {
    start: startInDeno,
    without: [
      UNREADABLE,
      { outcome: AMBIGUOUS, names: HOST_WITH_PATH },
      { outcome: REFUSED, names: [...REQUEST_LINE, ...NO_SLASH, ...CONTROL, /^forward\/of more than a thousand fields/] },
    ],
  },
  Node: {
    start: startInNode,
    without: [
      UNREADABLE,
      {
        outcome: REFUSED,
        names: [...REQUEST_LINE, ...NO_SLASH, ...CONTROL, ...CONNECT, ...METHODS, /^paths\/full-width letters as they are$/],
      },
    ],
  },
};

for (const [name, { start, joinsCookies = false, without }] of Object.entries(RUNTIMES)) {
  describe(`decision cases in ${name}`, () => {
    let upstream;
    let idle;
    let runtime;
    const providers = new Map();
    const tally = new Tally();

    before(async () => {
      upstream = await startUpstream();
      idle = await startReplies({});
      const gates = {};
      for (const one of cases) {
        const gate = gateOf(one);
        if (fetches(one)) providers.set(gate, await startReplies(one.replies));
        gates[gate] ??= { config: configOf(one), provider: (providers.get(gate) ?? idle).port };
      }
      runtime = await start({ now, upstream: upstream.port, gates });
    });
    after(async () => {
      await runtime?.stop();
      await Promise.all([...providers.values()].map((provider) => provider.stop()));
      await idle?.stop();
      await upstream?.stop();
    });

    const seen = (id) => upstream.requests.filter(({ headers }) =>
      headers.some(([field, value]) => field === REQUEST_ID && value === id));

    /** Sends a case over the wire. */
    async function send(one, id) {
      const { headers, ...head } = message(one.request);
      const tags = [["x-test-gate", gateOf(one)], [REQUEST_ID, id]];
      const sent = joinsCookies ? withOneCookieField(headers) : headers;
      return request(runtime.port, { ...head, headers: [...sent, ...tags] });
    }

    /** Checks that a case does not come to the gate over the wire. */
    async function assertBarred(one, outcome) {
      if (outcome === UNSENT) return assert.equal(one.request.headers, null);
      const id = randomUUID();
      if (outcome === REFUSED) {
        await assertRefused(send(one, id), () => seen(id));
        return assert.equal((await runtime.told(id)).reason, undefined, "the gate has seen it");
      }
      await send(one, id);
      assert.deepEqual(seen(id).map(({ path }) => path), outcome === ANOTHER ? ["/"] : []);
      return assert.equal((await runtime.told(id)).reason, outcome === ANOTHER ? "not_protected" : "path_rejected");
    }

    async function assertDecided(one, id, answer) {
      const { reason, decision } = await runtime.told(id);
      check(one, answer, reason, seen(id));
      assert.equal(decision, one.expect.decision);
      checkPosts(one, (providers.get(gateOf(one)) ?? idle).posts);
    }

    describe("one by one", { concurrency: 8 }, () => {
      for (const one of cases) {
        const { outcome } = without.find(({ names }) => names.some((pattern) => pattern.test(one.name))) ?? {};
        test(one.name, async () => {
          const id = randomUUID();
          if (outcome === undefined) {
            await assertDecided(one, id, await send(one, id));
            return tally.agrees(one, "as sent");
          }
          await assertBarred(one, outcome);
          await assertDecided(one, id, await runtime.hand({ gate: gateOf(one), id, request: one.request }));
          return tally.agrees(one, `handed over: ${outcome}`);
        });
      }
    });

    test("every case has been decided", (t) => t.diagnostic(`${name}: ${tally.assertComplete(cases)}`));

    test("what does not come over the wire is named by its cases", () => {
      for (const pattern of without.flatMap(({ names }) => names)) assert.ok(cases.some((one) => pattern.test(one.name)), `${pattern}`);
    });

    test("nothing is left on hold", async () => assert.equal((await runtime.told("")).waiting, 0));
  });
}

/** As an HTTP/2 client's are passed on (RFC 9113 section 8.2.3). */
function withOneCookieField(headers) {
  const isCookie = ([name]) => name.toLowerCase() === "cookie";
  const cookies = headers.filter(isCookie).map(([, value]) => value);
  if (cookies.length < 2) return headers;
  return [...headers.filter((field) => !isCookie(field)), ["cookie", cookies.join("; ")]];
}

function fetches({ replies }) {
  return Object.keys(replies).length > 0;
}

/** Numbers one gate for all cases of a configuration, but one for each case with a provider, since fetches leave traces. */
function gateOf(one) {
  const key = fetches(one) ? one.name : JSON.stringify(one.config);
  if (!numbers.has(key)) numbers.set(key, numbers.size);
  return String(numbers.get(key));
}

function configOf(one) {
  return fetches(one) ? { ...one.config, provider: { timeout: "500ms", ...one.config.provider } } : one.config;
}

async function startWorker(plan) {
  const modules = { "cases-worker.js": here("cases-worker.js"), "cases.js": here("cases.js"), "plan.json": plan };
  return telling(await startWorkerd({ modules }));
}

async function startInDeno(plan) {
  const directory = mkdtempSync(path.join(tmpdir(), "stepgate-deno-"));
  const file = path.join(directory, "plan.json");
  writeFileSync(file, JSON.stringify(plan));
  try {
    return telling(await startDeno(here("cases-deno.js"), { args: [file] }));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** A runtime that is asked what was decided, and is handed requests. */
function telling(runtime) {
  const told = async (id) => (await request(runtime.port, { path: `/told/${id}` })).json();
  const hand = (what) => request(runtime.port, { method: "POST", path: "/hand", body: JSON.stringify(what) });
  return Object.assign(runtime, { told, hand });
}

async function startInNode(plan) {
  const cases = startCases(plan, { createGate, answer });
  const app = proxy(`http://127.0.0.1:${plan.upstream}`);
  const served = (kind) => async (incoming, ...more) => {
    const gate = await cases.gate(incoming.headers["x-test-gate"]);
    return protect(gate, app)[kind](incoming, ...more);
  };
  const server = createServer({ maxHeaderSize: 128 * 1024 });
  server.maxHeadersCount = 0;
  server.on("request", served("request")).on("upgrade", served("upgrade"));
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    port: server.address().port,
    told: cases.told,
    async hand(what) {
      const response = await cases.hand(what);
      const handed = new Answer(response.status, [...response.headers]);
      handed.body = Buffer.from(await response.arrayBuffer());
      return handed;
    },
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
