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

/** How each runtime is started; and what it refuses by itself, so that no gate could decide it, by a test of the case. */
const RUNTIMES = {
  workerd: { start: startWorker, refuses: [] },
  Deno: { start: startInDeno, refuses: [] },
  Node: { start: startInNode, refuses: [] },
};

for (const [name, { start, refuses }] of Object.entries(RUNTIMES)) {
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
        const refusal = refuses.find(({ what }) => what(one));
        test(one.name, { skip: refusal?.why }, async () => {
          const id = randomUUID();
          const { headers, ...head } = message(one.request);
          const tags = [["x-test-gate", gateOf(one)], [REQUEST_ID, id]];
          const answer = await request(runtime.port, { ...head, headers: [...headers, ...tags] });
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
