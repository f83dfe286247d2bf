// The Kubernetes resources of envoy/ and of the pages, checked against what Kubernetes, Istio, Gateway API and Envoy Gateway define.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { parse } from "yaml";

import { documents, problems } from "./support/kubernetes.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The blocks of a page that show configurations of a cluster. */
async function blocks(name) {
  const page = await readFile(`${ROOT}/${name}`, "utf8");
  return [...page.matchAll(/^```yaml (?:istio|envoy-gateway)\n(.*?)^```$/gms)].map(([, block]) => block);
}

/** Every resource: `{ place, resource }`. */
async function resources() {
  const found = [];
  const take = (text, place) => {
    for (const resource of documents(text, place)) {
      if (resource?.apiVersion !== undefined) found.push({ place: `${place}: ${resource.kind} ${resource.metadata?.name}`, resource });
    }
  };
  for (const name of (await readdir(`${ROOT}/envoy`)).filter((name) => name.endsWith(".yaml")).sort()) {
    take(await readFile(`${ROOT}/envoy/${name}`, "utf8"), `envoy/${name}`);
  }
  for (const name of await readdir(`${ROOT}/docs`)) {
    for (const block of await blocks(`docs/${name}`)) take(block, `docs/${name}`);
  }
  return found;
}

const found = await resources();
const of = (file, kind) => {
  const matching = found.filter(({ place }) => place.startsWith(`envoy/${file}: ${kind} `));
  assert.equal(matching.length, 1, `one ${kind} in ${file}`);
  return matching[0].resource;
};

const unknown = (name) => new RegExp(`'"${name}"' does not exist in type`);

/** Mistakes: the resource, the change, and what must be told of it. */
const MISTAKES = [
  // Fields that do not exist: at the top, deep inside, of another API, in the wrong case.
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.pluginConfiguration = {}; }, unknown("pluginConfiguration")],
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.failPolicy = "FAIL_CLOSE"; }, unknown("failPolicy")],
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.vmConfig.env[0].secretKeyRef = {}; }, unknown("secretKeyRef")],
  ["istio-wasmplugin.yaml", "DestinationRule", (it) => { it.spec.trafficPolicy.portLevelSettings[0].tls.subjectAltName = []; }, unknown("subjectAltName")],
  ["istio-gateway.yaml", "Deployment", (it) => { it.spec.template.spec.containers[0].env[0].valueFrom.secretRef = {}; }, unknown("secretRef")],
  ["kubernetes-secret.yaml", "Secret", (it) => { it.stringdata = {}; }, unknown("stringdata")],
  ["envoy-gateway.yaml", "EnvoyExtensionPolicy", (it) => { it.spec.wasm[0].failStrategy = "FAIL_CLOSE"; }, unknown("failStrategy")],
  ["envoy-gateway.yaml", "EnvoyExtensionPolicy", (it) => { it.spec.wasm[0].env.hostkeys = []; }, unknown("hostkeys")],
  ["envoy-gateway.yaml", "EnvoyProxy", (it) => { it.spec.provider.kubernetes.envoyDeployment.env = []; }, unknown("env")],
  ["envoy-gateway.yaml", "BackendTLSPolicy", (it) => { it.spec.validation.sni = "a.example"; }, unknown("sni")],
  // Wrong types.
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.pluginConfig = "{}"; }, /pluginConfig must be object/],
  ["istio-wasmplugin.yaml", "ServiceEntry", (it) => { it.spec.ports[0].number = "443"; }, /number must be integer/],
  ["kubernetes-secret.yaml", "Secret", (it) => { it.stringData.key = 1; }, /stringData\/key must be string/],
  ["envoy-gateway.yaml", "EnvoyExtensionPolicy", (it) => { it.spec.wasm[0].failOpen = "false"; }, /failOpen must be boolean/],
  ["envoy-gateway.yaml", "HTTPRoute", (it) => { it.spec.hostnames = "app.example.com"; }, /hostnames must be array/, "app"],
  // Wrong values.
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.phase = "AUTH"; }, /phase must be equal to one of/],
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.failStrategy = "CLOSED"; }, /failStrategy must be equal to one of/],
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.vmConfig.env[0].valueFrom = "SECRET"; }, /valueFrom must be equal to one of/],
  ["istio-sidecar.yaml", "WasmPlugin", (it) => { it.spec.match[0].mode = "INBOUND"; }, /mode must be equal to one of/],
  ["istio-wasmplugin.yaml", "ServiceEntry", (it) => { it.spec.location = "EXTERNAL"; }, /location must be equal to one of/],
  ["envoy-gateway.yaml", "EnvoyExtensionPolicy", (it) => { it.spec.wasm[0].code.type = "OCI"; }, /code\/type must be equal to one of/],
  ["envoy-gateway.yaml", "BackendTLSPolicy", (it) => { it.spec.validation.hostname = "*.example"; }, /hostname must match pattern/],
  ["envoy-gateway.yaml", "Backend", (it) => { it.spec.endpoints[0].fqdn.port = 70000; }, /port must be <= 65535/],
  // What is missing or null.
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { delete it.spec.url; }, /required property url/],
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.failStrategy = null; }, /failStrategy is null/],
  ["envoy-gateway.yaml", "BackendTLSPolicy", (it) => { delete it.spec.validation.hostname; }, /required property hostname/],
  ["istio-gateway.yaml", "Deployment", (it) => { delete it.spec.selector; }, /required property selector/],
  // Kinds and versions that there are not.
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.apiVersion = "extensions.istio.io/v1"; }, /no kind/],
  ["envoy-gateway.yaml", "EnvoyExtensionPolicy", (it) => { it.kind = "WasmPolicy"; }, /no kind/],
  // The API servers' own rules.
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.targetRefs = [{ kind: "Gateway", name: "a" }]; }, /targetRefs or selector/],
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.url = "ftp://a"; }, /url schema/],
  ["istio-wasmplugin.yaml", "WasmPlugin", (it) => { it.spec.vmConfig.env[0].value = "a"; }, /valueFrom is INLINE/],
  ["envoy-gateway.yaml", "EnvoyExtensionPolicy", (it) => { it.spec.wasm[0].code.type = "HTTP"; }, /of its type/],
  ["envoy-gateway.yaml", "EnvoyExtensionPolicy", (it) => { it.spec.wasm[0].code.image.sha256 = "00"; }, /sha256/],
  ["envoy-gateway.yaml", "BackendTLSPolicy", (it) => { it.spec.validation.caCertificateRefs = [{ group: "", kind: "ConfigMap", name: "a" }]; }, /either caCert/],
];

test("every resource is one that its API accepts, and no mistake in one is missed", async (context) => {
  assert.ok(found.length >= 20, `${found.length} resources`);
  const mistakes = MISTAKES.map(([file, kind, change, expected, name]) => {
    const original = name === undefined ? of(file, kind) : found.find(({ place }) => place === `envoy/${file}: ${kind} ${name}`).resource;
    const resource = structuredClone(original);
    change(resource);
    return { what: `${file}: ${kind}, ${change}`, resource, expected };
  });
  const all = await problems([...found, ...mistakes].map(({ resource }) => resource));
  for (const [at, { place }] of found.entries()) {
    await context.test(place, () => assert.deepEqual(all[at], []));
  }
  for (const [at, { what, expected }] of mistakes.entries()) {
    const told = all[found.length + at];
    await context.test(what, () => assert.ok(told.some((line) => expected.test(line)), told.join("\n") || "nothing is told"));
  }
});

const envoyYaml = async () => parse(await readFile(`${ROOT}/envoy/envoy.yaml`, "utf8"));

test("what the resources carry as text is what Envoy and Istio read", async () => {
  const { bootstrap } = of("envoy-gateway.yaml", "EnvoyProxy").spec;
  const { stats_config: tags, static_resources: { listeners } } = await envoyYaml();
  assert.deepEqual(parse(bootstrap.value), { stats_config: tags });
  const [{ format: { json } }] = of("envoy-gateway.yaml", "EnvoyProxy").spec.telemetry.accessLog.settings;
  const [{ typed_config: { log_format: log } }] = listeners[0].filter_chains[0].filters[0].typed_config.access_log;
  for (const [name, format] of Object.entries(json)) assert.equal(format, log.json_format[name]);
  assert.ok(json.stepgate);
  for (const file of ["istio-gateway.yaml", "istio-sidecar.yaml"]) {
    const { annotations } = of(file, "Deployment").spec.template.metadata;
    assert.deepEqual(parse(annotations["proxy.istio.io/config"]), { proxyStatsMatcher: { inclusionPrefixes: ["wasmcustom"] } });
  }
});

test("the secrets that a gate reads reach it, from the Secret, and that has no values here", async () => {
  const secret = of("kubernetes-secret.yaml", "Secret");
  const proxy = (file) => of(file, "Deployment").spec.template.spec.containers.find(({ name }) => name === "istio-proxy");
  const names = (file) => of(file, "WasmPlugin").spec.vmConfig.env.map(({ name }) => name);
  const check = (expected, env) => {
    assert.deepEqual(env.map(({ name }) => name), expected);
    for (const { valueFrom: { secretKeyRef: { name, key } } } of env) {
      assert.equal(name, secret.metadata.name);
      assert.equal(secret.stringData[key], "");
    }
  };
  check(names("istio-wasmplugin.yaml"), proxy("istio-gateway.yaml").env);
  check(names("istio-sidecar.yaml"), proxy("istio-sidecar.yaml").env);
  const { env: { hostKeys } } = of("envoy-gateway.yaml", "EnvoyExtensionPolicy").spec.wasm[0];
  check(hostKeys, of("envoy-gateway.yaml", "EnvoyProxy").spec.provider.kubernetes.envoyDeployment.container.env);

  const values = (await blocks("docs/istio.md")).map((block) => parse(block)).find(({ envVarFrom }) => envVarFrom);
  assert.deepEqual(values.envVarFrom, proxy("istio-gateway.yaml").env, "the Helm chart's values do the same");
  const { annotations } = of("istio-gateway.yaml", "Deployment").spec.template.metadata;
  const name = "proxy.istio.io/config";
  assert.deepEqual(values.podAnnotations, { [name]: annotations[name] });
});

test("what points to another resource finds it", () => {
  const { labels } = of("istio-gateway.yaml", "Deployment").spec.template.metadata;
  const selects = (selector) => Object.entries(selector).every(([name, value]) => labels[name] === value);
  assert.ok(selects(of("istio-wasmplugin.yaml", "WasmPlugin").spec.selector.matchLabels));
  assert.ok(selects(of("istio-wasmplugin.yaml", "Telemetry").spec.selector.matchLabels));
  assert.ok(selects(of("istio-gateway.yaml", "Service").spec.selector));
  assert.ok(selects(of("istio-gateway.yaml", "Gateway").spec.selector));
  const app = of("istio-sidecar.yaml", "Deployment").spec.template.metadata.labels;
  const { selector, match } = of("istio-sidecar.yaml", "WasmPlugin").spec;
  assert.equal(app.app, selector.matchLabels.app);
  assert.deepEqual(match, [{ mode: "SERVER" }], "in a sidecar, requests to the app");
  assert.equal(of("istio-wasmplugin.yaml", "WasmPlugin").spec.match, undefined, "in a gateway, all");

  const gateway = of("envoy-gateway.yaml", "Gateway");
  const proxy = of("envoy-gateway.yaml", "EnvoyProxy");
  const { group, kind, name } = gateway.spec.infrastructure.parametersRef;
  assert.deepEqual([group, kind, name], [proxy.apiVersion.split("/")[0], proxy.kind, proxy.metadata.name]);
  const policy = of("envoy-gateway.yaml", "EnvoyExtensionPolicy");
  assert.deepEqual(policy.spec.targetRefs.map(({ name }) => name), [gateway.metadata.name]);
  const route = found.find(({ place }) => place === "envoy/envoy-gateway.yaml: HTTPRoute stepgate-provider").resource;
  const backend = of("envoy-gateway.yaml", "Backend");
  const tls = of("envoy-gateway.yaml", "BackendTLSPolicy");
  const { provider } = policy.spec.wasm[0].config;
  assert.equal(provider.cluster, `httproute/${route.metadata.namespace}/${route.metadata.name}/rule/0`);
  assert.deepEqual(route.spec.rules, [{ backendRefs: [{ group: "gateway.envoyproxy.io", kind: "Backend", name: backend.metadata.name }] }]);
  assert.deepEqual(tls.spec.targetRefs, [{ group: "gateway.envoyproxy.io", kind: "Backend", name: backend.metadata.name }]);
  const { hostname } = new URL(provider.issuer);
  assert.equal(tls.spec.validation.hostname, hostname);
  assert.deepEqual(backend.spec.endpoints, [{ fqdn: { hostname, port: 443 } }]);
  const closed = of("envoy-gateway.yaml", "SecurityPolicy");
  assert.deepEqual(closed.spec, { targetRefs: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", name: route.metadata.name }], authorization: { defaultAction: "Deny" } });
  for (const resource of [gateway, policy, route, backend, tls, closed, proxy]) assert.equal(resource.metadata.namespace, gateway.metadata.namespace);
});
