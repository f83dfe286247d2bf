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
import { startCases } from "./edge/cases.js";
import { check, checkPosts, expanded, message } from "./support/cases.mjs";
import { startDeno, startWorkerd } from "./support/edge.mjs";
import { REQUEST_ID } from "./support/envoy.mjs";
import { request } from "./support/http.mjs";
import { startReplies } from "./support/replies.mjs";
import { startUpstream } from "./support/upstream.mjs";

const { now, cases } = await expanded();
const numbers = new Map();

const here = (file) => fileURLToPath(new URL(`edge/${file}`, import.meta.url));

const UNREADABLE = { why: "a runtime hands over whatever it accepts", names: [/^forward\/(a|such a) host/] };
const HOST_WITH_PATH = {
  why: "the runtime makes one URL of such a host and the target, so what is path cannot be known: refused (400)",
  names: [/^rules\/hosts: a path in it$/],
};
const NO_SLASH = [/^paths\/no leading slash$/];
const REQUEST_LINE = {
  why: "the runtime itself refuses the request line",
  names: [/^paths\/(a raw (tab|newline|NUL|DEL)|no path at all)$/],
};

/**
 * How each runtime is started; and which cases cannot come about in it, with the reason. `joinsCookies`: it joins several cookie
 * fields with a comma, so they are sent in one.
 */
const RUNTIMES = {
  workerd: {
    start: startWorker,
    joinsCookies: true,
    without: [
      UNREADABLE,
      HOST_WITH_PATH,
      REQUEST_LINE,
      { why: "workerd answers CONNECT by a handler of its own, which no gate has", names: [/^paths\/CONNECT has no path$/] },
      { why: "workerd takes such a target for a part of the host", names: NO_SLASH },
      { why: "workerd itself refuses the host", names: [/^rules\/hosts: (bytes that are not ASCII|none)$/] },
      { why: "workerd itself refuses the method", names: [/^rules\/methods: (every one by default: one that nobody|lower case)/] },
    ],
  },
  Deno: {
    start: startInDeno,
    without: [
      UNREADABLE,
      HOST_WITH_PATH,
      REQUEST_LINE,
      { why: "Deno itself refuses the target", names: NO_SLASH },
      { why: "Deno itself refuses the field", names: [/^cookies\/a control character$/] },
      { why: "Deno itself refuses so many fields", names: [/^forward\/of more than a thousand fields/] },
    ],
  },
  Node: {
    start: startInNode,
    without: [
      UNREADABLE,
      REQUEST_LINE,
      { why: "Node itself refuses the target", names: [...NO_SLASH, /^paths\/full-width letters as they are$/] },
      { why: "Node itself refuses the field", names: [/^cookies\/a control character$/] },
      { why: "Node closes the connection of a CONNECT", names: [/^paths\/CONNECT has no path$/] },
      { why: "Node itself refuses the method", names: [/^rules\/methods: (every one by default: one that nobody|lower case)/] },
    ],
  },
};

for (const [name, { start, joinsCookies = false, without }] of Object.entries(RUNTIMES)) {
  describe(`decision cases in ${name}`, () => {
    let upstream;
    let idle;
    let runtime;
    const providers = new Map();

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

    describe("one by one", { concurrency: 8 }, () => {
      for (const one of cases) {
        const lacking = without.find(({ names }) => names.some((pattern) => pattern.test(one.name)));
        test(one.name, { skip: lacking?.why }, async () => {
          const id = randomUUID();
          const { headers, ...head } = message(one.request);
          const tags = [["x-test-gate", gateOf(one)], [REQUEST_ID, id]];
          const sent = joinsCookies ? withOneCookieField(headers) : headers;
          const answer = await request(runtime.port, { ...head, headers: [...sent, ...tags] });
          const { reason, decision } = await runtime.told(id);
          const seen = upstream.requests.filter(({ headers }) =>
            headers.some(([field, value]) => field === REQUEST_ID && value === id));
          check(one, answer, reason, seen);
          assert.equal(decision, one.expect.decision);
          checkPosts(one, (providers.get(gateOf(one)) ?? idle).posts);
        });
      }
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

/** A runtime that is asked what was decided. */
function telling(runtime) {
  const told = async (id) => (await request(runtime.port, { path: `/told/${id}` })).json();
  return Object.assign(runtime, { told });
}

async function startInNode(plan) {
  const cases = startCases(plan, createGate);
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
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
