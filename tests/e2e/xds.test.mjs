// The files of envoy/dynamic in real Envoy, changed under load: no request is lost, none is decided by a configuration
// that is no longer in force, and one that the gate refuses changes nothing.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rename, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { parse } from "yaml";

import { loopback, startEnvoyIn, stepgateModule } from "./support/envoy.mjs";
import { cookie, providerToken } from "./support/gate.mjs";
import { request } from "./support/http.mjs";
import { startProvider } from "./support/provider.mjs";
import { secret } from "./support/secrets.mjs";
import { CLIENT_ID, signingKey } from "./support/tokens.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const EXAMPLES = fileURLToPath(new URL("../../envoy/", import.meta.url));
const SECRET = "0123456789abcdef0123456789abcdef";
const ENVIRONMENT = {
  STEPGATE_CLIENT_SECRET: secret("client secret", SECRET),
  STEPGATE_KEY: secret("sealing key", Buffer.from(SECRET).toString("base64")),
};

const CLIENTS = 6;
const MOST_REQUESTS = 30_000;
/** Of the example's redirect_uri: the gate logs nobody in for another. */
const HOST = "127.0.0.1:10000";
const JSON_CLIENT = ["accept", "application/json"];

const example = async (name) => parse(await readFile(path.join(EXAMPLES, name), "utf8"));
const managerOf = (listener) => listener.filter_chains[0].filters[0].typed_config;
const filterOf = (manager) => manager.http_filters.find(({ name }) => name === "stepgate");

test("the files are envoy/envoy.yaml in parts", async () => {
  const { static_resources: { listeners, clusters }, ...whole } = await example("envoy.yaml");
  const { node, dynamic_resources: dynamic, ...rest } = await example("dynamic/bootstrap.yaml");
  assert.deepEqual(rest, whole);
  assert.deepEqual(Object.keys(node), ["id", "cluster"]);
  assert.deepEqual(Object.keys(dynamic), ["lds_config", "cds_config"]);

  const parts = async (name, type) => (await example(name)).resources.map(({ "@type": found, ...resource }) => {
    assert.equal(found, `type.googleapis.com/envoy.config.${type}`);
    return resource;
  });
  assert.deepEqual(await parts("dynamic/clusters.yaml", "cluster.v3.Cluster"), clusters);
  const split = await parts("dynamic/listeners.yaml", "listener.v3.Listener");
  const [gate, ...others] = await parts("dynamic/gate.yaml", "core.v3.TypedExtensionConfig");
  assert.deepEqual(others, []);
  const { config_discovery: discovery } = filterOf(managerOf(split[0]));
  assert.deepEqual(discovery.type_urls, [gate.typed_config["@type"]]);
  assert.deepEqual(Object.keys(discovery), ["config_source", "type_urls"], "there is no default: without a gate nothing passes");
  managerOf(split[0]).http_filters = managerOf(split[0]).http_filters.map((filter) => (filter.name === gate.name ? gate : filter));
  assert.deepEqual(split, listeners);
});

/** Envoy with the files of envoy/dynamic, in a directory of the test's own. */
async function startDynamic({ upstream, provider, rules }) {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-xds-"));
  const moved = ({ path_config_source: source }) => {
    source.path = path.join(directory, path.basename(source.path));
    source.watched_directory.path = directory;
  };
  const bootstrap = await example("dynamic/bootstrap.yaml");
  Object.values(bootstrap.dynamic_resources).forEach(moved);
  bootstrap.admin.address = loopback(0);

  const listeners = await example("dynamic/listeners.yaml");
  Object.assign(listeners.resources[0], { address: loopback(0), stat_prefix: "portal" });
  moved(filterOf(managerOf(listeners.resources[0])).config_discovery.config_source);

  const clusters = await example("dynamic/clusters.yaml");
  const ports = { app: upstream.port, idp: provider.port };
  for (const { name, load_assignment: { endpoints: [{ lb_endpoints: [{ endpoint }] }] } } of clusters.resources) {
    endpoint.address = loopback(ports[name]);
  }

  /** Puts a file into place as the example says: by a rename. */
  const put = async (name, document) => {
    const file = path.join(directory, name);
    await writeFile(`${file}.new`, JSON.stringify(document)); // which is YAML
    await rename(`${file}.new`, file);
  };
  const putRules = async (rules) => {
    const gate = await example("dynamic/gate.yaml");
    const { config } = gate.resources[0].typed_config;
    config.vm_config.code.local.filename = stepgateModule();
    const { value } = config.configuration;
    value.provider.issuer = provider.issuer;
    value.client.id = CLIENT_ID;
    value.rules = rules;
    await put("gate.yaml", gate);
  };
  await put("listeners.yaml", listeners);
  await put("clusters.yaml", clusters);
  await putRules(rules);
  const envoy = await startEnvoyIn({ directory, bootstrap, env: ENVIRONMENT });
  return { envoy, putRules };
}

const DISCOVERY = "extension_config_discovery.http_filter.stepgate";
const RELOADED = `${DISCOVERY}.config_reload`;
const REFUSED = `${DISCOVERY}.update_rejected`;

/** How a trap shows; that Envoy tells of the gates that it has refused is none. */
const TRAP = /Function: \S+ failed|panicked at|Uncaught RuntimeError/;

const SALARY = { name: "payroll", paths: ["/salary/**"] };
const ADMIN = { name: "admin", paths: ["/admin/**"] };

describe("the rules of a gate that serves", () => {
  let upstream;
  let provider;
  let envoy;
  let putRules;

  before(async () => {
    upstream = await startUpstream();
    provider = await startProvider({ keys: [signingKey().jwk] });
    ({ envoy, putRules } = await startDynamic({ upstream, provider, rules: [SALARY] }));
  });
  after(async () => {
    await envoy?.stop();
    await provider?.stop();
    await upstream?.stop();
  });

  const OUTCOME = `^(${RELOADED}|${REFUSED})$`;

  test("change under load, and no request is lost or decided by the old ones", async () => {
    const token = cookie(providerToken(provider));
    let expected = { admin: [200] };
    const wrong = [];
    const load = { sent: 0, forwarded: 0, stopped: false };

    /** One client, one connection: it asks, and asks again when it is answered. */
    const connections = [];
    while (connections.length < CLIENTS) connections.push(...await envoy.connections("portal"));
    const counts = new Array(CLIENTS).fill(0);
    const kinds = [
      ["/news", [], () => [200]],
      ["/salary/1", [token], () => [200]],
      ["/salary/2", [JSON_CLIENT], () => [401]],
      ["/admin/3", [JSON_CLIENT], () => expected.admin],
      ["/admin/4", [token], () => [200]],
      ["/admin/5", [JSON_CLIENT], () => expected.admin],
    ];
    const clients = connections.map(async (connection, at) => {
      for (let turn = at; !load.stopped && load.sent < MOST_REQUESTS; turn += 1) {
        const [target, headers, statuses] = kinds[turn % kinds.length];
        load.sent += 1;
        const before = statuses(); // a change while the request is under way leaves both ways open
        let status = "no answer";
        try {
          ({ status } = await connection.request({ path: `${target}?${at}-${turn}`, host: HOST, headers }));
        } catch (error) {
          wrong.push(`${target}: ${error.message}`);
          return;
        }
        if (status === 200) load.forwarded += 1;
        if (!before.includes(status)) wrong.push(`${target}: ${status}, not ${before}`);
        counts[at] += 1;
        await pause(1); // a steady load, which leaves a core to others
      }
    });

    /** Until each client has had so many answers more. */
    const answers = async (more) => {
      const start = [...counts];
      await eventually(10_000, `${more} answers for each client`, () => wrong.length > 0 || counts.every((count, at) => count >= start[at] + more));
      assert.deepEqual(wrong, []);
    };
    /** Changes the rules; the answers may be the old ones until Envoy says that the change is in force. */
    const change = async (rules, admin) => {
      const outcomes = await envoy.sum(OUTCOME);
      expected = { admin: [200, 401] };
      await putRules(rules);
      await envoy.until(OUTCOME, outcomes + 1);
      // Told by the main thread: a worker has it before it takes up another request than the one it may be at.
      await answers(1);
      expected = { admin };
      await answers(20);
    };
    try {
      await answers(20);
      for (let round = 1; round <= 3; round += 1) {
        await change([SALARY, ADMIN], [401]);
        await change([SALARY, { ...ADMIN, path: "/admin" }], [401]);
        assert.equal((await envoy.stats(OUTCOME)).get(REFUSED), round, "the gate has refused it");
        assert.match(envoy.log, /rules\[1\]\.path: unknown field/);
        await change([SALARY], [200]);
      }
      assert.equal((await envoy.stats(OUTCOME)).get(REFUSED), 3);
    } finally {
      load.stopped = true;
      await Promise.all(clients);
    }
    assert.deepEqual(wrong, []);
    assert.ok(connections.every(({ open }) => open), "no connection was closed");
    connections.forEach((connection) => connection.close());
    assert.ok(load.sent < MOST_REQUESTS);
    assert.equal(upstream.count, load.forwarded, "the app got each request that it answered, once");
    assert.doesNotMatch(envoy.log, TRAP);
  });
});

test("a gate that is refused when Envoy starts lets nothing pass, until there is one", async () => {
  const upstream = await startUpstream();
  const provider = await startProvider({ keys: [signingKey().jwk] });
  const { envoy, putRules } = await startDynamic({ upstream, provider, rules: [{ ...SALARY, path: "/salary" }] });
  try {
    for (const path of ["/news", "/salary"]) {
      assert.equal((await request(envoy.port("portal"), { path, host: HOST })).status, 500);
    }
    assert.equal(upstream.count, 0);
    await putRules([SALARY]);
    await envoy.until(RELOADED);
    await eventually(10_000, "the gate is there", async () => (await request(envoy.port("portal"), { path: "/news", host: HOST })).status === 200);
    assert.equal((await request(envoy.port("portal"), { path: "/salary", host: HOST, headers: [JSON_CLIENT] })).status, 401);
  } finally {
    await envoy.stop();
    await provider.stop();
    await upstream.stop();
  }
});
