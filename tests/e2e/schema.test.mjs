// schema/stepgate.schema.json beside the gate itself: what the gate accepts, the schema accepts; what the gate refuses, the schema
// refuses too, but for what no schema can say.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import Ajv from "ajv/dist/2020.js";

import { expanded } from "./support/cases.mjs";
import { TOOL } from "./support/tool.mjs";

const schema = JSON.parse(await readFile(new URL("../../schema/stepgate.schema.json", import.meta.url), "utf8"));
const validate = new Ajv({ strict: true, allowUnionTypes: true, strictRequired: false, strictTypes: false, allErrors: true }).compile(schema);

/** What the gate finds in each of these documents, by the tool: a list of problems for each. */
async function check(documents) {
  const child = execFile(TOOL, ["check", "-", "--json"], { maxBuffer: 1 << 28, env: { PATH: process.env.PATH } });
  const told = new Promise((resolve, reject) => {
    let out = "";
    let err = "";
    child.stdout.on("data", (text) => { out += text; });
    child.stderr.on("data", (text) => { err += text; });
    child.on("close", () => (out === "" ? reject(new Error(err)) : resolve(JSON.parse(out))));
  });
  child.stdin.end(JSON.stringify(documents));
  const reports = await told;
  assert.equal(reports.length, documents.length);
  return reports.map(({ errors }) => errors.map(({ path, message }) => `${path}: ${message}`));
}

/** What a schema cannot say, by what the gate says: what depends on several places, on the time, or on the sense of a text. */
const BEYOND = [
  /^callback\.cookie\.domain: must be a domain such as/,
  /^callback\.keys\[\d+\]: must be 32 random bytes in base64/,
  /^client\.redirect_uri: falls under the rule/,
  /^client\.secret: (missing, must be the client secret, since|must be a private EC key)/,
  /^provider\.\w+_endpoint: missing, must be .*, since with/,
  /^provider\.max_stale: must not be shorter than/,
  /: must be a duration from/, // the schema knows what a duration looks like
  /^rules\[\d+\]\.require\.acr\.at_least: must be one of `acr_levels`/,
  /^rules\[\d+\]\.name: `.*` is the name of another rule/,
  /^token\.algorithms: HS256 needs/,
];

const bases = [...new Map((await expanded()).cases.map(({ config }) => [JSON.stringify(config), config])).values()];

test("what the gate accepts, the schema accepts", () => {
  assert.ok(bases.length > 100, `${bases.length} configurations`);
  for (const config of bases) assert.ok(validate(config), `${JSON.stringify(validate.errors?.[0])}\n${JSON.stringify(config).slice(0, 400)}`);
});

/** Every place of a document, as a path. */
function* places(value, path = []) {
  if (value === null || typeof value !== "object") return;
  for (const key of Object.keys(value)) {
    const place = [...path, Array.isArray(value) ? Number(key) : key];
    yield place;
    yield* places(value[key], place);
  }
}

/** A document with one mistake: another value at a place, or none. */
function changed(document, path, change) {
  const copy = structuredClone(document);
  const last = path.at(-1);
  const parent = path.slice(0, -1).reduce((value, key) => value[key], copy);
  if (change === undefined && Array.isArray(parent)) parent.splice(last, 1);
  else if (change === undefined) delete parent[last];
  else parent[last] = change;
  return copy;
}

const VALUES = [undefined, null, "", "x", "-5s", "9999d", "/a/../b", "http://example.com/", "ftp://a", 0, -1, 1.5, 1e9, true, [], [[]], [1], {}, { surprise: 1 }, ["x", "x"]];

test("mistakes at every place of every kind of configuration", async () => {
  // Of documents that have the same places, one is enough.
  const shapes = [...new Map(bases.map((config) => [[...places(config)].map((place) => place.join("/")).join(), config])).values()];
  const documents = new Map();
  for (const config of shapes.slice(0, 120)) {
    for (const place of places(config)) {
      // What is inside a key is the provider's business.
      if (place[1] === "jwks" || (place[0] === "step_up" && place[1] === "claims")) continue;
      for (const value of VALUES) {
        const document = changed(config, place, value);
        if (document.provider !== undefined && document.client !== undefined) {
          documents.set(JSON.stringify(document), { document, place, value });
        }
      }
      const parent = place.slice(0, -1).reduce((value, key) => value[key], config);
      if (!Array.isArray(parent) && !["headers", "params", "cluster", "claims"].includes(place.at(-2))) {
        const document = changed(config, [...place.slice(0, -1), "surprise"], 1);
        documents.set(JSON.stringify(document), { document, place, value: "surprise" });
      }
    }
  }
  const all = [...documents.values()];
  const sample = all.filter((_, index) => index % Math.ceil(all.length / 6000) === 0);
  const found = await check(sample.map(({ document }) => document));
  const [tooStrict, tooLax] = [[], []];
  let refused = 0;
  for (const [index, { document, place, value }] of sample.entries()) {
    const accepts = validate(document);
    const problems = found[index];
    const told = `${place.join("/")} = ${JSON.stringify(value)}: ${problems[0] ?? JSON.stringify(validate.errors?.[0])}`;
    if (problems.length === 0 && !accepts) tooStrict.push(told);
    if (problems.length > 0 && accepts && !problems.some((problem) => BEYOND.some((pattern) => pattern.test(problem)))) tooLax.push(told);
    if (problems.length > 0 && !accepts) refused += 1;
  }
  assert.deepEqual(tooStrict, []);
  assert.deepEqual([...new Set(tooLax)], []);
  assert.ok(refused > 1_000, `${refused} of ${sample.length} refused by both`);
  console.log(`${sample.length} documents, ${refused} refused by both`);
});

test("every object of the configuration has the gate's own fields", async () => {
  const source = await readFile(new URL("../../src/config.rs", import.meta.url), "utf8");
  const objects = {
    ROOT: schema, PROVIDER: schema.properties.provider, CLIENT: schema.properties.client, TOKEN: schema.properties.token,
    STEP_UP: schema.$defs.step_up, RULE: schema.properties.rules.items, CALLBACK: schema.properties.callback,
    CALLBACK_COOKIE: schema.properties.callback.properties.cookie, FORWARD: schema.properties.forward,
    REQUIRE: schema.properties.rules.items.properties.require,
  };
  const lists = [...source.matchAll(/pub const ([A-Z_]+): \[&str; \d+\] =\s*\[([^\]]*)\]/g)].map(([, name, list]) => [name, [...list.matchAll(/"([^"]+)"/g)].map(([, field]) => field)]);
  const fields = Object.fromEntries(lists.filter(([name]) => name in objects));
  assert.deepEqual(Object.keys(fields).sort(), Object.keys(objects).sort());
  for (const [name, object] of Object.entries(objects)) {
    assert.deepEqual(Object.keys(object.properties), fields[name], name);
    assert.equal(object.additionalProperties, false, name);
    for (const [field, property] of Object.entries(object.properties)) assert.ok(property.description, `${name}.${field} is described`);
  }
});
