// The decision cases of tests/cases/*.json through the module in real Envoy. They must be decided as in the library.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { REQUEST_ID, startEnvoy } from "./support/envoy.mjs";
import { ask } from "./support/gate.mjs";
import { startReplies } from "./support/replies.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const REPOSITORY = fileURLToPath(new URL("../../", import.meta.url));

/** What an answer's status says of the decision, and the gRPC status that takes its place. */
const ANSWERS = {
  redirect: { status: 302 },
  challenge: { status: 401, grpc: "16" },
  bad_request: { status: 400, grpc: "3" },
  forbidden: { status: 403, grpc: "7" },
  unavailable: { status: 503, grpc: "14" },
};

const cases = await expanded();
const listenerOf = grouped(cases.filter(({ skip }) => !skip.envoy));
const listeners = [...new Set(listenerOf.values())];

describe("decision cases", () => {
  let upstream;
  let envoy;

  before(async () => {
    upstream = await startUpstream();
    const clusters = { app: upstream.port };
    for (const listener of listeners.filter(({ replies }) => replies)) {
      listener.provider = await startReplies(listener.replies);
      clusters[listener.name] = listener.provider.port;
    }
    envoy = await startEnvoy({
      listeners: listeners.map(({ name, config }) => ({ name, config })),
      clusters,
      // With one worker, a reply has arrived at the gate as soon as Envoy has counted it.
      concurrency: 1,
      extraHcm: {
        max_request_headers_kb: 96,
        http_protocol_options: { enable_trailers: true, allow_custom_methods: true },
      },
    });
    await fetched(envoy);
  });
  after(async () => {
    await envoy?.stop();
    await Promise.all(listeners.map(({ provider }) => provider?.stop()));
    await upstream?.stop();
  });

  describe("one by one", { concurrency: 8 }, () => {
    for (const one of cases) {
      test(one.name, { skip: one.skip.envoy }, async () => {
        const { answer, entry } = await ask(envoy, listenerOf.get(one).name, message(one.request));
        const seen = upstream.requests.filter((request) =>
          request.headers.some(([field, value]) => field === REQUEST_ID && value === entry.id));
        check(one, answer, entry, seen);
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

/** The cases as run now: with tokens minted, keys in place. */
async function expanded() {
  const example = (command, ...more) => promisify(execFile)(
    "cargo", [command, "--quiet", "--locked", "--example", "expand-cases", ...more],
    { cwd: REPOSITORY, maxBuffer: 256 * 1024 * 1024 },
  );
  await example("build"); // which may take a while: the time to mint for is that after it
  const { stdout } = await example("run", "--", String(Math.floor(Date.now() / 1000)));
  return JSON.parse(stdout);
}

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

/** Waits until every gate has what its provider tells it at first. */
async function fetched(envoy) {
  const asking = listeners.filter(({ provider }) => provider);
  await Promise.all(asking.map(({ provider }) => provider.asked()));
  const answers = ({ replies }) => Object.values(replies).filter(([first]) => !first.failure).length;
  await eventually(10_000, "the gates have the first replies", async () => {
    const stats = await envoy.stats("^cluster\\.cases-\\d+\\.upstream_rq_completed$");
    return asking.every((listener) => stats.get(`cluster.${listener.name}.upstream_rq_completed`) >= answers(listener));
  });
}

/** A request as HTTP/1.1 sends it: CONNECT has the authority in the place of the path (RFC 9112 section 3.2.3). */
function message({ method, path, authority, headers }) {
  return { method, path: method === "CONNECT" ? authority : path, host: authority, headers };
}

function check({ request, expect }, answer, entry, seen) {
  const grpc = isGrpc(request) && seen.length === 0;
  const decision = decisionOf(answer, entry, seen, grpc);
  const reason = entry.reason ?? "not_protected";
  assert.equal(`${decision}/${reason}`, `${expect.decision}/${expect.reason}`, `${answer.status}, ${entry.details}`);
  if (seen.length > 0) {
    assert.doesNotMatch(entry.details, /stepgate/);
    if (request.path.startsWith("/")) assert.equal(seen[0].path, request.path, "the app sees the path as it came");
  } else {
    assert.equal(entry.details, `stepgate_${expect.reason}`);
    checkAnswer(decision, answer);
  }
  if (expect.status !== undefined && !grpc) assert.equal(answer.status, expect.status);
  for (const [name, expected] of Object.entries(expect.headers ?? {})) {
    compare(`header \`${name}\``, answer.header(name), expected);
  }
  const body = expect.body === undefined ? undefined : answer.json();
  for (const [name, expected] of Object.entries(expect.body ?? {})) {
    if (expected === true) assert.ok(name in body, `body member \`${name}\``);
    else assert.deepEqual(body[name], expected, `body member \`${name}\``);
  }
  if (expect.endpoint === undefined && expect.authorize === undefined) return;
  const url = answer.header("location") ?? answer.json().step_up_url;
  const [, endpoint, query] = /^([^?]*)\??(.*)$/.exec(url);
  if (expect.endpoint !== undefined) compare("endpoint", endpoint, expect.endpoint);
  const parameters = new URLSearchParams(query);
  for (const [name, expected] of Object.entries(expect.authorize ?? {})) {
    const values = parameters.getAll(name);
    assert.ok(values.length <= 1, `parameter \`${name}\` comes ${values.length} times`);
    compare(`parameter \`${name}\``, values[0], expected);
  }
}

/** What holds for every answer of a kind, and no case has to say. */
function checkAnswer(decision, answer) {
  assert.equal(answer.header("cache-control"), "no-store");
  const only = { location: "redirect", "www-authenticate": "challenge", "retry-after": "unavailable" };
  for (const [name, kind] of Object.entries(only)) {
    assert.equal(answer.header(name) !== undefined, decision === kind, `\`${name}\` in the answer: ${answer.header(name)}`);
  }
}

/** The decision as it shows from outside. */
function decisionOf(answer, entry, seen, grpc) {
  if (seen.length > 1) return "the app saw it twice";
  if (seen.length === 1) {
    if (![200, 101].includes(answer.status)) return `forward, but ${answer.status}`;
    return entry.reason === null || entry.reason === "satisfied" ? "forward" : "report";
  }
  const told = ([, { status, grpc: code }]) =>
    grpc ? answer.status === 200 && answer.header("grpc-status") === code : answer.status === status;
  return Object.entries(ANSWERS).find(told)?.[0] ?? `status ${answer.status}`;
}

/** As Envoy tells: a local reply to such a request becomes a gRPC status. */
function isGrpc({ headers }) {
  const [, type = ""] = headers.find(([name]) => name === "content-type") ?? [];
  return type === "application/grpc" || type.startsWith("application/grpc+");
}

/** `true`: anything; `null`: nothing; `{ contains: text }`; otherwise the very value. */
function compare(what, found, expected) {
  if (expected === true) assert.ok(found, what);
  else if (expected === null) assert.equal(found, undefined, what);
  else if (typeof expected === "string") assert.equal(found, expected, what);
  else assert.ok(found?.includes(expected.contains), `${what}: found ${found}, expected ${JSON.stringify(expected)}`);
}
