// The decision cases of tests/cases/*.json through the module in real Envoy. They must be decided as in the library.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { REQUEST_ID, startEnvoy } from "./support/envoy.mjs";
import { ask } from "./support/gate.mjs";
import { DOCUMENTS, startReplies } from "./support/replies.mjs";
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
        check(one, answer, entry, seen);
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

/** A request as HTTP/1.1 sends it: CONNECT has the authority in the place of the path (RFC 9112 section 3.2.3). */
function message({ method, path, authority, headers, body }) {
  const target = method === "CONNECT" ? authority : path;
  return { method, path: target, host: authority, headers, ...(body !== "" && { body: Buffer.from(body, "latin1") }) };
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
  checkCookies(expect.cookies ?? {}, answer.all("set-cookie"));
  checkApp(expect.app ?? {}, seen);
  if (expect.page !== undefined) compare("page", answer.text(), expect.page);
  const body = expect.body === undefined ? undefined : answer.json();
  for (const [name, expected] of Object.entries(expect.body ?? {})) {
    if (expected === true) assert.ok(name in body, `body member \`${name}\``);
    else assert.deepEqual(body[name], expected, `body member \`${name}\``);
  }
  if (expect.endpoint === undefined && expect.authorize === undefined) return;
  const url = answer.header("location") ?? answer.json().step_up_url;
  const [, endpoint, query] = /^([^?]*)\??(.*)$/.exec(url ?? "");
  if (expect.endpoint !== undefined) compare("endpoint", endpoint || undefined, expect.endpoint);
  checkParameters(query, expect.authorize);
}

function checkParameters(form, expected = {}) {
  const parameters = new URLSearchParams(form);
  for (const [name, value] of Object.entries(expected)) {
    const values = parameters.getAll(name);
    assert.ok(values.length <= 1, `parameter \`${name}\` comes ${values.length} times`);
    compare(`parameter \`${name}\``, values[0], value);
  }
}

/** The cookies that an answer sets, by name. A name that ends in `*` stands for all others that begin so. */
function checkCookies(expected, lines) {
  for (const [name, value] of Object.entries(expected)) {
    const prefix = name.endsWith("*") ? name.slice(0, -1) : undefined;
    const found = lines.filter((line) => {
      const cookie = line.slice(0, line.indexOf("="));
      return prefix === undefined ? cookie === name : cookie.startsWith(prefix) && !(cookie in expected);
    });
    const several = Array.isArray(value) ? value : [value];
    assert.ok(found.length <= several.length, `cookie \`${name}\` comes ${found.length} times`);
    several.forEach((one, index) => checkCookie(`cookie \`${name}\``, found[index], one));
  }
}

function checkCookie(what, line, expected) {
  const empty = line?.includes("=;");
  if (expected === "cleared") return assert.ok(empty && line.includes("; Max-Age=0;"), `${what}: ${line}`);
  if (expected === true) assert.ok(!empty, `${what} is empty`);
  compare(what, line, expected);
}

/** The request as the app got it. */
function checkApp(expected, [seen]) {
  for (const [name, value] of Object.entries(expected)) {
    assert.ok(seen, "the app gets nothing");
    const values = seen.headers.filter(([field]) => field === name).map(([, value]) => value);
    const joined = values.join(name === "cookie" ? "; " : ", ");
    compare(`the app's \`${name}\``, values.length === 0 ? undefined : joined, value);
  }
}

/** What the provider got: once where it was to be asked, and as expected. */
function checkPosts({ replies, expect: { posted = {} } }, posts) {
  const asked = Object.keys(replies).filter((endpoint) => !DOCUMENTS.includes(endpoint));
  assert.deepEqual(posts.map(({ endpoint }) => endpoint).sort(), asked.sort());
  for (const { endpoint, form, authorization } of posts) {
    const { authorization: expected, client_assertion: claims, ...parameters } = posted[endpoint] ?? {};
    if (expected !== undefined) compare("authorization", authorization, expected);
    if (claims !== undefined) {
      const [, payload] = new URLSearchParams(form).get("client_assertion").split(".");
      const found = JSON.parse(Buffer.from(payload, "base64url").toString());
      assert.deepEqual({ ...found, ...claims }, found, "the client's assertion");
    }
    checkParameters(form, parameters);
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

/** `true`: anything; `null`: nothing; `{ contains, ends, lacks }`: texts; otherwise the very value. */
function compare(what, found, expected) {
  if (expected === true) return assert.ok(found, what);
  if (expected === null) return assert.equal(found, undefined, what);
  if (typeof expected === "string") return assert.equal(found, expected, what);
  const { contains = "", ends = "", lacks } = expected;
  const fits = found?.includes(contains) && found.endsWith(ends) && (lacks === undefined || !found.includes(lacks));
  assert.ok(fits, `${what}: found ${found}, expected ${JSON.stringify(expected)}`);
}
