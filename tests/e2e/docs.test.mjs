// What the documentation shows of other software: Envoy accepts its configurations with the gate's in them, the
// JavaScript runs, the expressions match. The rest is checked in tests/docs.rs.

import assert from "node:assert/strict";
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import { rootCertificates } from "node:tls";
import { fileURLToPath } from "node:url";

import { parse, parseAllDocuments } from "yaml";

import { envoyBinary, stepgateModule } from "./support/envoy.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const SECRET = "0123456789abcdef0123456789abcdef";
const ENVIRONMENT = { STEPGATE_CLIENT_SECRET: SECRET, STEPGATE_KEY: Buffer.from(SECRET).toString("base64") };

/** The blocks of all pages: `{ page, info, text }`. */
const blocks = (await Promise.all(["README.md", ...(await readdir(`${ROOT}/docs`)).map((name) => `docs/${name}`)]
  .map(async (page) => {
    const text = await readFile(`${ROOT}/${page}`, "utf8");
    return [...text.matchAll(/^```(\S[^\n]*)\n(.*?)^```$/gms)].map(([, info, block]) => ({ page, info, text: block }));
  }))).flat();

function only(info) {
  const found = blocks.filter((block) => block.info === info);
  assert.equal(found.length, 1, `one block \`${info}\``);
  return found[0].text;
}

const yamlFile = async (name) => parseAllDocuments(await readFile(`${ROOT}/${name}`, "utf8")).map((document) => document.toJS());

for (const version of ["newest", "oldest"]) {
  describe(`${version} Envoy accepts`, { concurrency: 2 }, () => {
    const filters = blocks.filter(({ info }) => info === "yaml envoy http_filters");
    for (const { page, text } of filters) {
      test(`the filters of ${page}`, async () => {
        await accepts(version, bootstrap({ manager: parse(text) }));
      });
    }

    for (const { page, text } of blocks.filter(({ info }) => info === "yaml envoy before")) {
      test(`the filters that ${page} leads away from`, async () => {
        await accepts(version, bootstrap({ manager: parse(text), hasGate: false }));
      });
    }

    test("the cluster, tags, access log and environment of the pages", async () => {
      const { http_filters: httpFilters } = parse(filters[0].text);
      Object.assign(pluginOf(httpFilters).vm_config, parse(only("yaml envoy vm_config")).vm_config);
      await accepts(version, bootstrap({
        manager: { http_filters: httpFilters, ...parse(only("yaml envoy access_log")) },
        clusters: parse(only("yaml envoy clusters")).clusters,
        top: parse(only("yaml envoy bootstrap")),
      }));
    });

    const handedOn = {
      "envoy/istio-wasmplugin.yaml": (of) => of("WasmPlugin").spec.pluginConfig,
      "envoy/istio-sidecar.yaml": (of) => of("WasmPlugin").spec.pluginConfig,
      "envoy/envoy-gateway.yaml": (of) => of("EnvoyExtensionPolicy").spec.wasm[0].config,
    };
    for (const [name, configOf] of Object.entries(handedOn)) {
      test(`the gate configuration of ${name}, as it is handed on`, async () => {
        const resources = await yamlFile(name);
        const config = configOf((kind) => resources.find((resource) => resource.kind === kind));
        const any = { "@type": "type.googleapis.com/google.protobuf.StringValue", value: JSON.stringify(config) };
        await accepts(version, bootstrap({ manager: { http_filters: filtersWith(filters[0].text, any) } }));
      });
    }

    test("no secret that the environment lacks", async () => {
      const { text } = filters.find((block) => block.page === "docs/envoy.md");
      const configuration = bootstrap({ manager: parse(text) });
      for (const name of Object.keys(ENVIRONMENT)) {
        const { [name]: left, ...others } = ENVIRONMENT;
        await assert.rejects(accepts(version, configuration, others), new RegExp(`\`${name}\` is not set`));
      }
    });

    test("the whole configurations in envoy/", async () => {
      for (const name of ["envoy/envoy.yaml", "envoy/envoy-own-login.yaml"]) {
        const [configuration] = await yamlFile(name);
        const [{ filter_chains: [{ filters: [{ typed_config: manager }] }] }] = configuration.static_resources.listeners;
        pluginOf(manager.http_filters).vm_config.code.local.filename = stepgateModule();
        await accepts(version, configuration);
      }
    });

    test("nothing with a mistake in the gate configuration", async () => {
      const { http_filters: httpFilters } = parse(filters[0].text);
      pluginOf(httpFilters).configuration.value.rules[0].path = "/salary";
      await assert.rejects(accepts(version, bootstrap({ manager: { http_filters: httpFilters } })), /rules\[0\]\.path: unknown field/);
    });
  });
}

/** The one command of the pages that begins so. */
function command(start) {
  const lines = blocks.filter(({ info }) => info === "sh").flatMap(({ text }) => text.split("\n"));
  const found = lines.filter((line) => line.startsWith(start));
  assert.equal(found.length, 1, `one command \`${start}\``);
  return execFileSync("/bin/sh", ["-c", found[0]], { encoding: "utf8" }).trim();
}

/** Where there is no openssl, the other command is tried all the same. */
const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

test("the command for a key makes one of 32 bytes", { skip: !hasOpenssl && "no openssl here" }, () => {
  const [key, another] = [command("openssl "), command("openssl ")];
  assert.equal(Buffer.from(key, "base64").length, 32);
  assert.equal(Buffer.from(key, "base64").toString("base64"), key);
  assert.notEqual(key, another);
});

test("the command for a client's private key makes one that the gate takes, and so is the key", async () => {
  const { text } = blocks.find(({ page, info }) => page === "docs/envoy.md" && info === "yaml envoy http_filters");
  const { http_filters: httpFilters } = parse(text);
  const { configuration } = pluginOf(httpFilters);
  const gate = JSON.parse(configuration.value);
  gate.client.authentication = "private_key_jwt";
  configuration.value = JSON.stringify(gate);
  const { d, ...publicHalf } = JSON.parse(command("node "));
  assert.deepEqual([publicHalf.kty, publicHalf.crv, typeof d], ["EC", "P-256", "string"]);
  const environment = hasOpenssl ? { STEPGATE_KEY: command("openssl ") } : ENVIRONMENT;
  await accepts("newest", bootstrap({ manager: { http_filters: httpFilters } }), {
    ...environment, STEPGATE_CLIENT_SECRET: JSON.stringify({ ...publicHalf, d }),
  });
  const withoutIt = accepts("newest", bootstrap({ manager: { http_filters: httpFilters } }), {
    ...environment, STEPGATE_CLIENT_SECRET: JSON.stringify(publicHalf),
  });
  await assert.rejects(withoutIt, /must be a private EC key on P-256/);
});

test("the relabelling for Prometheus splits every name", () => {
  const { metric_relabel_configs: steps } = parse(only("yaml prometheus"));
  const relabel = (name) => {
    const labels = { __name__: name };
    for (const { source_labels: [source], regex, replacement, target_label: target } of steps) {
      const matched = new RegExp(`^(?:${regex})$`).exec(labels[source]);
      if (matched) labels[target] = replacement.replace(/\$(\d)/g, (_, group) => matched[group]);
    }
    return labels;
  };
  assert.deepEqual(relabel("stepgate_decisions_decision_redirect_reason_amr_missing"), {
    __name__: "stepgate_decisions", decision: "redirect", reason: "amr_missing",
  });
  assert.deepEqual(relabel("stepgate_decisions_decision_bad_request_reason_path_rejected"), {
    __name__: "stepgate_decisions", decision: "bad_request", reason: "path_rejected",
  });
  assert.deepEqual(relabel("envoy_cluster_upstream_rq"), { __name__: "envoy_cluster_upstream_rq" });
});

test("the tags cut every counter as the page says", () => {
  const { stats_config: { stats_tags: tags } } = parse(only("yaml envoy bootstrap"));
  const cut = (name) => tags.flatMap(({ tag_name: tag, regex }) => {
    const [, removed, value] = new RegExp(regex).exec(name) ?? [];
    return removed === undefined ? [] : [[tag, value]];
  });
  assert.deepEqual(cut("wasmcustom.stepgate_decisions.decision=redirect.reason=amr_missing"), [["decision", "redirect"], ["reason", "amr_missing"]]);
  assert.deepEqual(cut("wasmcustom.stepgate_signatures.by=host.algorithm=RS256"), [["by", "host"], ["algorithm", "RS256"]]);
  assert.deepEqual(cut("wasmcustom.stepgate_fetches.endpoint=keys.result=status_503"), [["endpoint", "keys"], ["result", "status_503"]]);
  assert.deepEqual(cut("cluster.idp.upstream_rq_200"), []);
});

/** Runs Envoy in its validation mode; the error has its log. */
async function accepts(version, configuration, environment = ENVIRONMENT) {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-docs-"));
  try {
    const file = path.join(directory, "envoy.json");
    await writeFile(file, JSON.stringify(configuration));
    await new Promise((resolve, reject) => {
      execFile(
        envoyBinary(version),
        ["--mode", "validate", "--config-path", file, "--log-level", "error", "--use-dynamic-base-id"],
        { env: { ...process.env, ...environment } },
        (error, stdout, stderr) => (error ? reject(new Error(`${stdout}\n${stderr}`)) : resolve()),
      );
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A whole configuration around the parts that a page shows. */
function bootstrap({ manager, clusters = [], top = {}, hasGate = true }) {
  if (hasGate) pluginOf(manager.http_filters).vm_config.code.local.filename = stepgateModule();
  for (const cluster of clusters) withCertificate(cluster);
  const connectionManager = {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    stat_prefix: "docs",
    route_config: { virtual_hosts: [] },
    ...manager,
  };
  return {
    static_resources: {
      listeners: [{
        name: "docs",
        address: { socket_address: { address: "127.0.0.1", port_value: 0 } },
        filter_chains: [{ filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: connectionManager }] }],
      }],
      clusters,
    },
    ...top,
  };
}

/** The machine that runs this may have its certificates elsewhere. */
function withCertificate(cluster) {
  const { validation_context: context } = cluster.transport_socket.typed_config.common_tls_context;
  assert.ok(context.trusted_ca.filename && context.match_typed_subject_alt_names.length, "the certificate is verified");
  context.trusted_ca = { inline_string: rootCertificates[0] };
}

function filtersWith(text, configuration) {
  const { http_filters: httpFilters } = parse(text);
  const plugin = pluginOf(httpFilters);
  plugin.configuration = configuration;
  plugin.vm_config.environment_variables = { host_env_keys: Object.keys(ENVIRONMENT) };
  return httpFilters;
}

function pluginOf(httpFilters) {
  return httpFilters.find(({ name }) => name === "stepgate").typed_config.config;
}
