// Checks of Kubernetes resources by what Kubernetes, Istio, Gateway API and Envoy Gateway define. The packages
// @kubernetes-models/* and kubernetes-models are made from their definitions: from the CRDs of Istio
// 1.29.2, and from the Go types of Gateway API (one that has ListenerSet in v1) and Envoy Gateway (of August 2026). They give
// validators (types, patterns, limits, what is required) and TypeScript types, by which a field that they do not know is an
// error here, where a cluster may drop it silently. RULES are those of the API servers' rules in CEL that are about these
// resources; the packages have none.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { parseAllDocuments } from "yaml";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const TSC = path.join(path.dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");

/** The documents of a text, parsed strictly. */
export function documents(text, place) {
  return parseAllDocuments(text).map((document) => {
    assert.deepEqual(document.errors.concat(document.warnings), [], place);
    return document.toJS();
  });
}

/** The module that defines a kind. */
function moduleOf({ apiVersion, kind }) {
  const [group] = apiVersion.includes("/") ? apiVersion.split("/") : [""];
  const packages = { "gateway.networking.k8s.io": "gateway-api", "gateway.envoyproxy.io": "envoy-gateway" };
  const name = group.endsWith(".istio.io") ? "istio" : packages[group];
  return `${name === undefined ? "kubernetes-models" : `@kubernetes-models/${name}`}/${apiVersion}/${kind}`;
}

/** What the validators find. They take a null for a field that is left out; an example has none. */
async function invalid(resource) {
  const found = [];
  JSON.stringify(resource, (key, value) => {
    if (value === null) found.push(`${key} is null`);
    return value;
  });
  let Model;
  try {
    ({ [resource.kind]: Model } = await import(moduleOf(resource)));
  } catch {
    return [`no kind ${resource.apiVersion} ${resource.kind}`];
  }
  try {
    new Model(resource).validate();
  } catch (error) {
    found.push(error.message);
  }
  return found;
}

/** What the TypeScript compiler finds in each of them. */
async function mistyped(list) {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-kubernetes-"));
  try {
    await symlink(`${ROOT}/node_modules`, path.join(directory, "node_modules"), "dir");
    const files = await Promise.all(list.map(async (resource, at) => {
      const type = `I${resource.kind}`;
      const text = `import type { ${type} } from ${JSON.stringify(moduleOf(resource))};\n`
        + `export const resource: ${type} = ${JSON.stringify(resource)};\n`;
      await writeFile(path.join(directory, `${at}.ts`), text);
      return `${at}.ts`;
    }));
    const told = await new Promise((resolve, reject) => {
      const args = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler", "--types", "", "--pretty", "false"];
      execFile(process.execPath, [TSC, ...args, ...files], { cwd: directory }, (error, stdout, stderr) => {
        if (stderr !== "" || (error !== null && stdout === "")) reject(new Error(`tsc: ${stderr || error}`));
        else resolve(stdout);
      });
    });
    const errors = told.split("\n").filter((line) => line.includes("error TS"));
    const found = list.map((_, at) => errors.filter((line) => line.startsWith(`${at}.ts(`)));
    assert.equal(found.flat().length, errors.length, told);
    return found;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const one = (object, ...names) => names.filter((name) => object?.[name] !== undefined).length === 1;
const DIGEST = /^[a-f0-9]{64}$/;

/** Rules that the API servers check by CEL or a webhook: `[kind, what, holds]`. */
const RULES = [
  ["WasmPlugin", "only one of targetRefs or selector", ({ spec }) => [spec.targetRef, spec.targetRefs, spec.selector].filter(Boolean).length <= 1],
  ["WasmPlugin", "url schema must be one of http, https, file or oci", ({ spec }) => /^(https?|file|oci):\/\/./.test(spec.url)],
  ["WasmPlugin", "value may only be set when valueFrom is INLINE", ({ spec }) =>
    (spec.vmConfig?.env ?? []).every(({ value, valueFrom = "INLINE" }) => (valueFrom === "INLINE") === (value !== undefined))],
  ["ServiceEntry", "port numbers and names are unique", ({ spec }) =>
    ["number", "name"].every((key) => new Set(spec.ports.map((port) => port[key])).size === spec.ports.length)],
  ["Telemetry", "only one of targetRefs or selector", ({ spec }) => !(spec.selector && spec.targetRefs)],
  ["EnvoyExtensionPolicy", "either targetRef or targetRefs must be used", ({ spec }) => one(spec, "targetRef", "targetRefs", "targetSelectors")],
  ["EnvoyExtensionPolicy", "the code is of its type", ({ spec }) =>
    spec.wasm.every(({ code }) => code[{ HTTP: "http", Image: "image" }[code.type]] !== undefined && one(code, "http", "image"))],
  ["EnvoyExtensionPolicy", "sha256 is one", ({ spec }) => spec.wasm.every(({ code }) => DIGEST.test((code.image ?? code.http).sha256))],
  ["SecurityPolicy", "either targetRef or targetRefs must be used", ({ spec }) => one(spec, "targetRef", "targetRefs", "targetSelectors")],
  ["Backend", "one of fqdn, ip or unix must be specified", ({ spec }) => spec.endpoints.every((endpoint) => one(endpoint, "fqdn", "ip", "unix"))],
  ["BackendTLSPolicy", "must specify either caCertificateRefs or wellKnownCACertificates", ({ spec }) =>
    one(spec.validation, "caCertificateRefs", "wellKnownCACertificates")],
  ["Gateway", "tls of HTTPS listeners has certificates", ({ apiVersion, spec }) =>
    !apiVersion.startsWith("gateway.networking") || spec.listeners.every(({ protocol, tls }) => protocol !== "HTTPS" || tls?.certificateRefs?.length > 0)],
  ["Deployment", "the selector selects its pods", ({ spec }) =>
    Object.entries(spec.selector.matchLabels).every(([name, value]) => spec.template.metadata.labels[name] === value)],
];

const broken = (resource) => RULES.filter(([kind, , holds]) => kind === resource.kind && !holds(resource)).map(([, what]) => what);

/** All that is wrong with each of them. */
export async function problems(list) {
  const types = await mistyped(list);
  return Promise.all(list.map(async (resource, at) => {
    const values = await invalid(resource);
    return [...values, ...types[at], ...(values.length + types[at].length === 0 ? broken(resource) : [])];
  }));
}
