// The decision cases of tests/cases/*.json for runners that are not the library: as run now, and what must come of each.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { DOCUMENTS } from "./replies.mjs";

const REPOSITORY = fileURLToPath(new URL("../../../", import.meta.url));

/** What an answer's status says of the decision, and the gRPC status that takes its place. */
const ANSWERS = {
  redirect: { status: 302 },
  challenge: { status: 401, grpc: "16" },
  bad_request: { status: 400, grpc: "3" },
  forbidden: { status: 403, grpc: "7" },
  unavailable: { status: 503, grpc: "14" },
};

/** The cases as run now: with tokens minted, keys in place. `now` is the time in seconds that they were made for. */
export async function expanded() {
  await example("build"); // which may take a while: the time to mint for is that after it
  const now = Math.floor(Date.now() / 1000);
  return { now, cases: await expandedAt(now) };
}

/** The cases as run at a time in seconds, with keys of their own. */
export async function expandedAt(now) {
  const { stdout } = await example("run", "--", String(now));
  return JSON.parse(stdout);
}

function example(command, ...more) {
  return promisify(execFile)(
    "cargo", [command, "--quiet", "--locked", "--example", "expand-cases", ...more],
    { cwd: REPOSITORY, maxBuffer: 256 * 1024 * 1024 },
  );
}

/** Which cases a host has agreed on, and by which way each has come to its gate. */
export class Tally {
  #agreed = new Map();

  /** A case has been decided as expected; `way` tells how it came to the gate. */
  agrees({ name }, way) {
    this.#agreed.set(name, way);
  }

  /** Checks that these are all the cases but some, which the host cannot have, and gives the line to print. */
  assertComplete(cases, absent = []) {
    const missing = cases.filter(({ name }) => !this.#agreed.has(name)).map(({ name }) => name);
    assert.deepEqual(missing, absent.map(({ name }) => name), "cases without an outcome");
    assert.equal(this.#agreed.size + absent.length, cases.length);
    const ways = new Map();
    for (const way of this.#agreed.values()) ways.set(way, (ways.get(way) ?? 0) + 1);
    const agreed = [...ways].map(([way, count]) => `${count} ${way}`).join(", ");
    return `cases: ${cases.length} = ${this.#agreed.size} agree (${agreed}) + ${absent.length} that it cannot have`;
  }
}

/** Checks that a host has refused a request by itself: nothing but an error came of it, and the app has seen nothing. */
export async function assertRefused(sending, seen) {
  const answer = await sending.catch(() => undefined); // the host may close the connection instead
  if (answer) assert.ok(answer.status >= 400 && answer.header("cache-control") !== "no-store", `status ${answer.status}`);
  assert.deepEqual(seen(), []);
}

/** A request as HTTP/1.1 sends it: CONNECT has the authority in the place of the path (RFC 9112 section 3.2.3). */
export function message({ method, path, authority, headers, body }) {
  const target = method === "CONNECT" ? authority : path;
  return { method, path: target, host: authority, headers, ...(body !== "" && { body: Buffer.from(body, "latin1") }) };
}

/** Checks what came of a case: the answer, the reason that the gate told, and the requests that the app has seen. */
export function check({ request, expect }, answer, reason, seen) {
  const grpc = isGrpc(request) && seen.length === 0;
  const decision = decisionOf(answer, reason, seen, grpc);
  assert.equal(`${decision}/${reason}`, `${expect.decision}/${expect.reason}`, `status ${answer.status}`);
  if (seen.length === 0) checkAnswer(decision, answer);
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
export function checkPosts({ replies, expect: { posted = {} } }, posts) {
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
function decisionOf(answer, reason, seen, grpc) {
  if (seen.length > 1) return "the app saw it twice";
  if (seen.length === 1) {
    if (![200, 101].includes(answer.status)) return `forward, but ${answer.status}`;
    return reason === "not_protected" || reason === "satisfied" ? "forward" : "report";
  }
  const told = ([, { status, grpc: code }]) =>
    grpc ? answer.status === 200 && answer.header("grpc-status") === code : answer.status === status;
  return Object.entries(ANSWERS).find(told)?.[0] ?? `status ${answer.status}`;
}

/** As Envoy tells: a local reply to such a request becomes a gRPC status. */
function isGrpc({ headers }) {
  const [, type = ""] = (headers ?? []).find(([name]) => name === "content-type") ?? [];
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
