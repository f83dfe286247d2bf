// schema/stepgate.schema.json beside the gate itself: what the gate accepts, the schema accepts; what the gate refuses, the schema
// refuses too, but for what a schema cannot say. Its fields, defaults and limits are in tests/docs/schema.rs.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import Ajv from "ajv/dist/2020.js";
import { parse } from "yaml";

import { expanded } from "./support/cases.mjs";
import { TOOL } from "./support/tool.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const schema = JSON.parse(await readFile(`${ROOT}/schema/stepgate.schema.json`, "utf8"));

const ajv = new Ajv({ strict: true, allowUnionTypes: true });
// Editors show these in place of a pattern.
ajv.addVocabulary(["errorMessage", "patternErrorMessage"]);
const validate = ajv.compile(schema);

/** What no schema can say, by what the gate says of it, and why. */
const BEYOND = [
  ["the environment is not in the document", /\.env: the environment variable .* is not set/],
  ["what a variable holds is not in the document", /^callback\.keys\[(\d)\]: must be 32 random bytes in base64$/, ({ callback }, [, index]) => callback.keys[index].env],
  ["what a variable holds is not in the document", /^token\.algorithms: HS256 needs a `client\.secret` of at least 32/, ({ client }) => client.secret.env],
  ["what a variable holds is not in the document", /^client\.secret: must be a private EC key on P-256/, ({ client }) => client.secret?.env],
  ["a text in a text", /^client\.secret: must be a private EC key on P-256/, ({ client }) => /^\s*\{/.test(client.secret)],
  ["a key's numbers", /^provider\.jwks\.keys\[\d+\]: cannot be used: (not a point of|`alg` is for another type of key|an RSA key of)/],
  ["two texts compared", /^provider\.jwks: .* no key in it can be used/, ({ provider: { jwks: { keys } } }) => new Set(keys.map(({ kid }) => kid)).size < keys.length],
  ["two texts compared", /^provider\.max_stale: must not be shorter than/],
  ["two texts compared", /: falls under the rule `.*` itself, a loop/],
  ["two texts compared", /^rules\[\d+\]\.name: `.*` is the name of another rule/],
  ["two texts compared", /^rules\[\d+\]\.require\.acr\.at_least: must be one of `acr_levels`/],
  ["two texts compared", /^callback\.cookie\.domain: must be the host of `client\.redirect_uri`/],
  ["two texts compared", /^callback\.cookie\.domain: browsers take no cookie for all hosts below `localhost`/],
  ["two texts compared", /^callback\.logout_path: is the path of `client\.redirect_uri`/],
  ["two texts compared", /^forward\.headers\..*: is another spelling of a header field that is there already/],
  ["a length over several texts", /^rules\[\d+\]: what the rule requires and asks for must take at most/],
];

const sayable = (document) => (problem) => !BEYOND.some(([, pattern, only = () => true]) => {
  const found = pattern.exec(problem);
  return found !== null && only(document, found);
});

/** What the schema judges otherwise than the gate. */
function otherwise(judged) {
  return judged.flatMap(({ document, problems, place = "" }) => {
    const accepted = validate(document);
    const [fault] = validate.errors ?? [];
    const shown = `${place} ${JSON.stringify(document).slice(0, 400)}`;
    if (problems.length === 0) return accepted ? [] : [`refused, and the gate accepts it: ${fault.instancePath} ${fault.message} ${shown}`];
    return accepted && problems.some(sayable(document)) ? [`accepted, and the gate refuses it: ${problems} ${shown}`] : [];
  });
}

/** The documents that the tests of the gate in Rust judge, with what the gate finds: mistakes, the reference, the examples. */
async function judgedByTests() {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-schema-"));
  try {
    const file = path.join(directory, "judged");
    const run = promisify(execFile)("cargo", ["test", "--quiet", "--locked", "--no-fail-fast", "--test", "config", "--test", "docs"], {
      cwd: ROOT, env: { ...process.env, STEPGATE_JUDGED: file }, maxBuffer: 1 << 26,
    });
    // Whether they pass is for them to tell.
    await run.catch(() => {});
    const lines = new Set((await readFile(file, "utf8")).trim().split("\n"));
    return [...lines].map((line) => JSON.parse(line));
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** What the tool finds in each of these documents. */
async function judgedByTool(documents) {
  const found = [];
  // It reads no file with too many values in it.
  for (let from = 0; from < documents.length; from += 1_000) found.push(...await check(documents.slice(from, from + 1_000)));
  return found;
}

async function check(documents) {
  const child = execFile(TOOL, ["check", "--json", "-"], { maxBuffer: 1 << 28 });
  const told = Promise.all([child.stdout, child.stderr].map(async (stream) => (await stream.toArray()).join("")));
  child.stdin.end(JSON.stringify(documents));
  const [out, err] = await told;
  assert.equal(err, "");
  const reports = JSON.parse(out);
  assert.equal(reports.length, documents.length);
  return reports.map(({ errors }) => errors.map(({ path: place, message }) => `${place}: ${message}`));
}

describe("the schema judges as the gate does", () => {
  let cases;
  let judged;

  before(async () => {
    cases = [...new Set((await expanded()).cases.map(({ config }) => JSON.stringify(config)))].map((text) => JSON.parse(text));
    judged = await judgedByTests();
  });

  test("the configurations of the decision cases", () => {
    assert.ok(cases.length > 100, `${cases.length} configurations`);
    assert.deepEqual(otherwise(cases.map((document) => ({ document, problems: [] }))), []);
  });

  test("the providers' configurations", async () => {
    const names = await readdir(`${ROOT}/providers`);
    assert.ok(names.length > 5);
    for (const name of names) {
      const document = parse(await readFile(`${ROOT}/providers/${name}/stepgate.yaml`, "utf8"));
      assert.deepEqual(otherwise([{ document, problems: [] }]), [], name);
    }
  });

  test("good and bad configurations of the tests, and those of the documentation", () => {
    const good = judged.filter(({ problems }) => problems.length === 0).length;
    assert.ok(good > 100 && judged.length - good > 200, `${good} of ${judged.length} are good`);
    assert.deepEqual(otherwise(judged), []);
  });

  test("what is no object", () => {
    for (const document of [null, [], "", "x", 1, true]) assert.equal(validate(document), false, JSON.stringify(document));
  });

  test("what it cannot say is refused by nothing but the gate", () => {
    const refused = judged.filter(({ problems }) => problems.length > 0);
    for (const [why, pattern, only = () => true] of BEYOND) {
      const unsaid = (document) => (problem) => pattern.test(problem) && only(document, pattern.exec(problem));
      const missed = refused.filter(({ document, problems }) => problems.every(unsaid(document)) && validate(document));
      assert.ok(missed.length > 0, `${pattern} (${why}): the schema says it after all, or nobody tests it`);
    }
  });

  test("a mistake at every place of every kind of configuration", async () => {
    const documents = mistakes(cases);
    const problems = await judgedByTool(documents.map(({ document }) => document));
    const found = documents.map((one, index) => ({ ...one, problems: problems[index] }));
    const refused = found.filter((one) => one.problems.length > 0).length;
    assert.ok(refused > 2_000 && found.length - refused > 500, `${refused} of ${found.length} are refused`);
    assert.deepEqual(otherwise(found), []);
  });
});

/** Every place of a value, as a path. */
function* places(value, at = []) {
  if (value === null || typeof value !== "object") return;
  for (const [name, inner] of Object.entries(value)) {
    yield [...at, name];
    yield* places(inner, [...at, name]);
  }
}

const WRONG = [undefined, null, "", "x", "-5s", "9999d", "0s", "1001ms", "/a/../b", "/a?b", "http://example.com/", "https://u@a/", 0, 1.5, 1e9, true, [], [1], {}, { surprise: 1 }, ["x", "x"]];

/** Documents with one value changed, taken away or added, each shape of a place once. */
function mistakes(bases) {
  const found = new Map();
  const add = (base, at, value) => {
    const document = structuredClone(base);
    const parent = at.slice(0, -1).reduce((inner, name) => inner[name], document);
    const name = at.at(-1);
    if (value !== undefined) parent[name] = value;
    else if (Array.isArray(parent)) parent.splice(Number(name), 1);
    else delete parent[name];
    // What has neither is not taken for a configuration by the tool.
    if (document.provider === undefined || document.client === undefined) return;
    const shape = `${Object.keys(base)} ${at.join(".").replace(/\.\d+/g, "[]")} ${JSON.stringify(value)}`;
    if (!found.has(shape)) found.set(shape, { document, place: `${at.join(".")} = ${JSON.stringify(value)}:` });
  };
  for (const base of bases) {
    for (const at of places(base)) {
      // What a key is made of, and what the provider is asked for, is theirs.
      if ((at[1] === "jwks" && at.length > 4) || (at[0] === "step_up" && at[1] === "claims" && at.length > 2)) continue;
      for (const value of WRONG) add(base, at, value);
      add(base, [...at.slice(0, -1), "surprise"], 1);
    }
  }
  return [...found.values()];
}

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A pattern for the whole numbers from `from` to `to`. */
function numbers(from, to) {
  const [low, high] = [String(from), String(to)];
  if (low.length < high.length) {
    const nines = Number("9".repeat(low.length));
    return [...numbers(from, nines), ...numbers(nines + 1, to)];
  }
  if (from === to) return [low];
  const at = [...low].findIndex((digit, index) => digit !== high[index]);
  const [head, rest] = [low.slice(0, at), low.length - at - 1];
  const [before_, after_] = [[], []];
  let [first, last] = [Number(low[at]), Number(high[at])];
  if (Number(low.slice(at + 1)) !== 0) {
    before_.push(...numbers(from, Number(`${head}${first}${"9".repeat(rest)}`)));
    first += 1;
  }
  if (high.slice(at + 1) !== "9".repeat(rest)) {
    after_.push(...numbers(Number(`${head}${last}${"0".repeat(rest)}`), to));
    last -= 1;
  }
  const digits = ["", "[0-9]"][rest] ?? `[0-9]{${rest}}`;
  const middle = first <= last ? [`${head}${first === last ? first : `[${first}-${last}]`}${digits}`] : [];
  return [...before_, ...middle, ...after_];
}

/** The schema's durations: where they stand, their range, and words that are accepted as well. */
function durations(value = schema, at = "") {
  if (value === null || typeof value !== "object") return [];
  const [, words = "", from, to] = /^must be (?:(.*), or )?a duration from (\w+) to (\w+)/.exec(value.patternErrorMessage) ?? [];
  const found = from === undefined ? [] : [{
    at, from, to, pattern: value.pattern, words: [...words.matchAll(/`(\w+)`/g)].map(([, word]) => word),
    step: value.patternErrorMessage.includes("whole number of seconds") ? 1_000 : 1,
  }];
  return [...found, ...Object.entries(value).flatMap(([name, inner]) => durations(inner, `${at}/${name}`))];
}

test("durations are accepted within their ranges", () => {
  const millis = (text) => Number.parseInt(text, 10) * UNITS[text.replace(/\d+/, "")];
  const found = durations();
  assert.equal(found.length, 7);
  for (const { at, from, to, words, pattern, step } of found) {
    const within = Object.entries(UNITS).map(([unit, scale]) => {
      const whole = Math.max(scale, step);
      return { unit, scale, zeros: String(whole / scale).slice(1), least: Math.ceil(millis(from) / whole), most: Math.floor(millis(to) / whole) };
    }).filter(({ least, most }) => least <= most);
    const expected = [...words, ...within.map(({ unit, zeros, least, most }) => `0*(?:${numbers(least, most).join("|")})${zeros}${unit}`)];
    assert.equal(pattern, `^(?:${expected.join("|")})$`, at);
    const accepts = new RegExp(pattern, "u");
    for (const [unit, scale] of Object.entries(UNITS)) {
      for (const bound of [from, to].map((text) => Math.round(millis(text) / scale))) {
        for (const number of [bound - 10, bound - 1, bound, bound + 1, bound + 10, bound * 10, Math.floor(bound / 10), 10 ** String(bound).length].filter((one) => one >= 0)) {
          const time = number * scale;
          const good = time >= millis(from) && time <= millis(to) && time % step === 0;
          for (const text of [`${number}${unit}`, `00${number}${unit}`]) assert.equal(accepts.test(text), good, `${at}: ${text}`);
        }
      }
    }
    for (const bad of ["", "15", "m", "-5s", "+5s", "5.5s", "5 m", "5M", "1h30m", "5s\n"]) assert.ok(!accepts.test(bad), `${at}: ${bad}`);
  }
});
