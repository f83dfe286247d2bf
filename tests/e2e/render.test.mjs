// `stepgate render`: what it writes for Envoy and workerd runs as it stands, with a real provider; what it writes for Kubernetes is
// what Istio and Envoy Gateway define.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";

import { parse } from "yaml";

import { PACKAGE, startWorkerdIn } from "./support/edge.mjs";
import { loopback, startEnvoyIn, stepgateModule } from "./support/envoy.mjs";
import { REDIRECT_URI } from "./support/gate.mjs";
import { request } from "./support/http.mjs";
import { documents, problems } from "./support/kubernetes.mjs";
import { startOidc } from "./support/oidc.mjs";
import { ORIGIN, Person } from "./support/person.mjs";
import { secret } from "./support/secrets.mjs";
import { TOOL } from "./support/tool.mjs";
import { startUpstream } from "./support/upstream.mjs";

const SECRETS = { STEPGATE_CLIENT_SECRET: secret("client secret", "s3cret-of-the-client"), STEPGATE_KEY: randomBytes(32).toString("base64") };

function document(issuer) {
  return {
    provider: { issuer },
    client: { id: "client", redirect_uri: REDIRECT_URI, secret: { env: "STEPGATE_CLIENT_SECRET" } },
    token: { cookie: "__Host-id_token" },
    callback: { keys: [{ env: "STEPGATE_KEY" }] },
    forward: { headers: { "x-user-id": "sub" } },
    rules: [{ name: "payroll", paths: ["/salary/**"] }],
  };
}

async function inFolder(use) {
  const folder = await mkdtemp(path.join(tmpdir(), "stepgate-render-"));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Renders a configuration; gives what is printed. */
async function render(folder, config, ...args) {
  const file = path.join(folder, "stepgate.json");
  await writeFile(file, JSON.stringify(config));
  const { stdout } = await promisify(execFile)(TOOL, ["render", file, ...args], { env: { PATH: process.env.PATH } });
  return stdout;
}

describe("what is rendered runs", () => {
  let app;
  let oidc;
  before(async () => {
    app = await startUpstream();
    oidc = await startOidc({ clients: [{ client_id: "client", client_secret: SECRETS.STEPGATE_CLIENT_SECRET }] });
  });
  after(() => Promise.all([oidc?.stop(), app?.stop()]));

  /** A person logs in with a second factor, and gets back to the page. */
  async function logsIn(person) {
    const answers = await person.visit("/salary/2026");
    assert.equal(answers.at(-1).status, 200, answers.at(-1).text());
    assert.equal(answers.at(-1).url, `${ORIGIN}/salary/2026`);
  }

  test("in Envoy", () => inFolder(async (folder) => {
    const told = await render(folder, document(oidc.issuer), "--for", "envoy", "--app", `127.0.0.1:${app.port}`, "--module", stepgateModule());
    const bootstrap = parse(told);
    bootstrap.static_resources.listeners[0].address = loopback(0);
    bootstrap.admin.address = loopback(0);
    const directory = await mkdtemp(path.join(tmpdir(), "stepgate-render-envoy-"));
    const envoy = await startEnvoyIn({ directory, bootstrap, env: SECRETS });
    try {
      await logsIn(new Person((message) => request(envoy.port(bootstrap.static_resources.listeners[0].name), message)));
    } finally {
      await envoy.stop();
    }
  }));

  test("in workerd", () => inFolder(async (folder) => {
    const output = path.join(folder, "out");
    const args = ["--for", "workerd", "--app", `127.0.0.1:${app.port}`, "--module", PACKAGE, "--output", output];
    await render(folder, document(oidc.issuer), ...args);
    await assert.rejects(render(folder, document(oidc.issuer), ...args), /config\.capnp: is there already/, "nothing is written over");
    const file = path.join(output, "config.capnp");
    const text = await readFile(file, "utf8");
    assert.match(text, /"127\.0\.0\.1:8080"/);
    await writeFile(file, text.replace("127.0.0.1:8080", "127.0.0.1:0"));
    const workerd = await startWorkerdIn({ directory: output, socket: "http", env: SECRETS });
    try {
      await logsIn(new Person((message) => request(workerd.port, message)));
    } finally {
      await workerd.stop();
    }
  }));
});

const GOOGLE = { provider: { issuer: "https://accounts.google.com", jwks_uri: "https://www.googleapis.com/oauth2/v3/certs" } };

for (const [name, config, hosts] of [
  ["one host", document("https://login.example.com:8443/realms/a"), ["login.example.com"]],
  ["several hosts", { ...document("https://accounts.google.com"), ...GOOGLE }, ["accounts.google.com", "www.googleapis.com"]],
  ["nothing to fetch, no secrets", {
    provider: {
      issuer: "https://idp.example.com", authorization_endpoint: "https://idp.example.com/authorize",
      jwks: { keys: [{ kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] },
    },
    client: { id: "a", redirect_uri: "https://pay.example.com/callback" },
    token: { algorithms: ["EdDSA"] },
    rules: [{ paths: ["/pay/**"] }],
  }, []],
]) {
  for (const target of ["istio", "envoy-gateway"]) {
    test(`for ${target}: ${name}`, () => inFolder(async (folder) => {
      const digest = "a".repeat(64);
      const told = await render(folder, config, "--for", target, "--module", `registry.example.net/gate@sha256:${digest}`, "--namespace", "edge");
      const resources = documents(told, target).filter(Boolean);
      assert.deepEqual(await problems(resources), resources.map(() => []));
      assert.ok(told.includes(digest) && !told.includes("registry.example.com"), told);
      assert.ok(!told.includes("tenant.auth0.com") || hosts.includes("tenant.auth0.com"), told);
      for (const host of hosts) assert.ok(told.includes(host), `${host} is reached`);
      assert.deepEqual([...new Set(resources.map(({ metadata }) => metadata.namespace))], ["edge"]);
      const gate = resources.find(({ kind }) => ["WasmPlugin", "EnvoyExtensionPolicy"].includes(kind));
      const document = gate.spec.pluginConfig ?? gate.spec.wasm[0].config;
      const clusters = [document.provider.cluster ?? []].flatMap((cluster) => (typeof cluster === "string" ? [cluster] : Object.values(cluster)));
      assert.equal(new Set(clusters).size, hosts.length);
      for (const cluster of clusters) assert.ok(hasCluster(resources, cluster), cluster);
    }));
  }
}

/** Whether the resources make a cluster of that name. */
function hasCluster(resources, cluster) {
  const [, port, , host] = /^outbound\|(\d+)\|(.*)\|(.*)$/.exec(cluster) ?? [];
  if (host !== undefined) {
    const made = (kind, holds) => resources.some((resource) => resource.kind === kind && holds(resource.spec));
    return made("ServiceEntry", ({ hosts, ports }) => hosts[0] === host && String(ports[0].number) === port)
      && made("DestinationRule", (spec) => spec.host === host && String(spec.trafficPolicy.portLevelSettings[0].port.number) === port);
  }
  const [, namespace, name] = /^httproute\/(.*)\/(.*)\/rule\/0$/.exec(cluster);
  const named = (kind) => resources.some((resource) => resource.kind === kind && resource.metadata.name === name && resource.metadata.namespace === namespace);
  return ["HTTPRoute", "Backend", "BackendTLSPolicy"].every(named);
}
