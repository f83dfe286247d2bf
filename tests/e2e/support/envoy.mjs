// Real Envoy for end-to-end tests.
//
//   const envoy = await startEnvoy({
//     listeners: [{ name: "gate", config: gateConfig }],
//     clusters: { app: upstream.port, idp: provider.port },
//   });
//   await request(envoy.port("gate"), { path: "/salary" });
//   await envoy.stop();
//
// One call starts one Envoy process with any number of listeners, each with a gate configuration of its own (or
// none), on loopback and on ports that the kernel picks. Everything lives in a temporary directory that goes with
// the process. Nothing here sleeps for a fixed time: a test awaits Envoy's readiness, a counter (`until`), a line of
// the access log (`accessLog`) or a log message, each with a deadline.
//
// What a test takes from the environment:
//   STEPGATE_WASM   the module (default: dist/stepgate.wasm)
//   ENVOY           the newest Envoy that is supported, for every test
//   ENVOY_OLDEST    the oldest one, for the smoke set (`version: "oldest"`)
// A missing one is an error, never a skipped test.
//
// Around it: provider.mjs (an identity provider that misbehaves on request), upstream.mjs (the app, which records
// what reaches it), tokens.mjs (keys and ID Tokens), http.mjs (clients that send exact bytes), gate.mjs (gate
// configurations and the checks that every test ends with).

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { connect } from "./http.mjs";
import { assertKeepsSecrets, configuredSecrets } from "./secrets.mjs";
import { eventually, standingStill } from "./wait.mjs";

const REPOSITORY = fileURLToPath(new URL("../../../", import.meta.url));
const READY_WITHIN = 30_000;
const STOPPED_WITHIN = 5_000;

/** The header by which `accessLog` finds the line of a request. */
export const REQUEST_ID = "x-test-id";

/**
 * Starts Envoy and waits until it serves.
 *
 * @param {object} options
 * @param {Listener[]} options.listeners
 * @param {Record<string, number | object>} options.clusters  a port on loopback, or a whole Envoy cluster
 * @param {"newest" | "oldest"} [options.version]
 * @param {number} [options.concurrency]  the number of workers
 * @param {object} [options.extraHcm]     merged into each HTTP connection manager
 * @param {string} [options.logLevel]     of the gates (default: info)
 * @param {number} [options.drainSeconds] the listeners can be replaced (`reload`), and old ones end after so many seconds
 *
 * @typedef {object} Listener
 * @property {string} name
 * @property {object | string} [config]   the gate's configuration; none: no gate on this listener
 * @property {object[]} [before]          filters in front of the gate
 * @property {boolean} [allowOnHeadersStopIteration]  Envoy's flag; by default it is not set at all
 * @property {"string" | "struct"} [configAs]         how the configuration reaches the module (default: string)
 * @property {Record<string, string>} [env]           environment of the module
 * @property {string} [vmId]              gates with the same one share a VM in each worker (default: all of them)
 * @property {string} [failurePolicy]     what Envoy does when the VM crashes (default: Envoy's own)
 * @property {string} [module]            the file of another module than the one under test
 * @property {number} [port]              for a configuration that must name it (default: one that the kernel picks)
 * @property {string} [cluster]           where requests go after the gate (default: app)
 * @property {number} [maxHeaders]        how many request headers Envoy accepts (default: its own 100)
 * @property {object} [extraHcm]          merged into this listener's HTTP connection manager
 */
export async function startEnvoy(options) {
  return whenReady(await Envoy.launch(options));
}

/**
 * Starts Envoy with a bootstrap of the test's own, whose files lie in a directory that is removed with it.
 *
 * @param {object} options
 * @param {string} options.directory
 * @param {object} options.bootstrap
 * @param {Record<string, string>} [options.env]  of the process
 */
export async function startEnvoyIn({ directory, bootstrap, env }) {
  return whenReady(await Envoy.spawn({ directory, bootstrap, env }));
}

async function whenReady(envoy) {
  try {
    await envoy.ready();
    return envoy;
  } catch (error) {
    await envoy.stop();
    throw error;
  }
}

/** Starts Envoy with a configuration that it must refuse; gives its exit code and its log. */
export async function startRefused(options) {
  const envoy = await Envoy.launch(options);
  try {
    const code = await within(READY_WITHIN, envoy.exited, "Envoy neither refused the configuration nor ended");
    return { code, log: envoy.log };
  } finally {
    await envoy.stop();
  }
}

/** The path of the Envoy binary, from the environment. */
export function envoyBinary(version = "newest") {
  return requiredFile(version === "oldest" ? "ENVOY_OLDEST" : "ENVOY");
}

/** The path of the module under test. */
export function stepgateModule() {
  return requiredFile("STEPGATE_WASM", path.join(REPOSITORY, "dist/stepgate.wasm"));
}

class Envoy {
  #child;
  #directory;
  #admin;
  /** The names of the listeners that it starts with. */
  #listeners;
  #ports = new Map();
  #opening = new Map();
  #accessLog = new Map();
  #accessLogWaiters = new Map();
  #verdicts = new Set();
  #logWaiters = new Set();

  /** All that Envoy and the gates have logged so far. */
  log = "";

  static async launch({ version, listeners, clusters, concurrency = 2, extraHcm = {}, logLevel = "info", drainSeconds }) {
    listeners.forEach(configuredSecrets);
    const directory = await mkdtemp(path.join(tmpdir(), "stepgate-envoy-"));
    const replaceable = drainSeconds === undefined ? undefined : path.join(directory, LISTENERS);
    if (replaceable) await writeFile(replaceable, discoveryResponse(listeners, extraHcm));
    const args = replaceable ? ["--drain-time-s", String(drainSeconds), "--drain-strategy", "immediate"] : [];
    return Envoy.spawn({
      directory, bootstrap: bootstrap({ listeners, clusters, extraHcm, replaceable }), version, concurrency, logLevel, args,
      names: listeners.map(({ name }) => name),
    });
  }

  static async spawn({ directory, bootstrap, names, version, concurrency = 2, logLevel = "info", args = [], env = {} }) {
    const binary = envoyBinary(version);
    const file = path.join(directory, "bootstrap.json");
    await writeFile(file, JSON.stringify(bootstrap, null, 2));
    const child = spawn(binary, [
      ...["--config-path", file],
      ...["--admin-address-path", path.join(directory, "admin")],
      ...["--concurrency", String(concurrency)],
      ...["--log-level", "warning", "--component-log-level", `wasm:${logLevel}`],
      ...["--log-format", "%l %n: %v"],
      ...["--file-flush-interval-msec", "20"],
      ...args,
      "--use-dynamic-base-id",
    ], { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    return new Envoy(child, directory, concurrency, names ?? bootstrap.static_resources?.listeners?.map(({ name }) => name) ?? []);
  }

  constructor(child, directory, concurrency, listeners) {
    this.#child = child;
    this.#directory = directory;
    this.#listeners = listeners;
    this.concurrency = concurrency;
    endWithThisProcess(child, directory);
    this.exited = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => resolve(code ?? signal));
    });
    this.exited.catch(() => {});
    lines(child.stdout, (line) => this.#accessed(line));
    lines(child.stderr, (line) => this.#logged(line));
  }

  /** Waits until Envoy serves, and learns the ports. */
  async ready() {
    const ended = this.exited.then((code) => {
      throw new Error(`Envoy ended (${code}) before it served:\n${this.log}`);
    });
    ended.catch(() => {});
    const live = eventually(READY_WITHIN, "Envoy is ready", async () => {
      this.#admin ??= await this.#adminPort();
      return (await this.admin("/ready")).startsWith("LIVE") && this.#knowsPorts();
    });
    await Promise.race([live, ended]);
  }

  /** Whether every listener has its port: under load, Envoy is live a moment before the last one has. */
  async #knowsPorts() {
    const { listener_statuses: listeners } = JSON.parse(await this.admin("/listeners?format=json"));
    for (const { name, local_address: address } of listeners) {
      this.#ports.set(name, address.socket_address.port_value);
    }
    return this.#listeners.every((name) => this.#ports.get(name) > 0);
  }

  /** Replaces the listeners, which keep their ports; requests under way stay with the old ones. */
  async reload(listeners, extraHcm = {}) {
    listeners.forEach(configuredSecrets);
    const outcomes = "^listener_manager\\.lds\\.update_(success|rejected)$";
    const before = await this.stats(outcomes);
    const file = path.join(this.#directory, LISTENERS);
    await writeFile(`${file}.new`, discoveryResponse(listeners, extraHcm));
    await rename(`${file}.new`, file);
    await this.until(outcomes, total(before) + 1, READY_WITHIN);
    const rejected = "listener_manager.lds.update_rejected";
    assert.equal((await this.stats(outcomes)).get(rejected), before.get(rejected), `the listeners are accepted:\n${this.log}`);
  }

  /** The process's ID. */
  get pid() {
    return this.#child.pid;
  }

  /** The port of a listener. */
  port(name) {
    const port = this.#ports.get(name);
    assert.ok(port, `no listener \`${name}\``);
    return port;
  }

  /** The address of a listener, with a path. */
  url(name, target = "") {
    return `http://127.0.0.1:${this.port(name)}${target}`;
  }

  /** The text of an admin page. */
  async admin(page) {
    return get(this.#admin, page);
  }

  /** Envoy's counters and gauges by name, of those that match a pattern (RE2, as the admin page takes it). */
  async stats(pattern = "") {
    return pattern.includes("wasmcustom") ? standingStill(() => this.#stats(pattern)) : this.#stats(pattern);
  }

  async #stats(pattern) {
    const filter = pattern === "" ? "" : `&filter=${encodeURIComponent(pattern)}`;
    const { stats } = JSON.parse(await this.admin(`/stats?format=json${filter}`));
    return new Map(stats.filter((stat) => "value" in stat).map((stat) => [stat.name, stat.value]));
  }

  /** The sum of all counters whose names match. */
  async sum(pattern) {
    return total(await this.stats(pattern));
  }

  /** The sum of counters, once it is at least `count`. */
  async until(pattern, count = 1, milliseconds = 10_000) {
    return eventually(milliseconds, `\`${pattern}\` is at least ${count}`, async () => {
      const sum = total(await this.#stats(pattern));
      return sum >= count && sum;
    });
  }

  /**
   * The access log's line of the request that carried this value in the header `x-test-id`, parsed:
   * `{ id, code, details, flags, reason }`, `reason` being the filter state `wasm.stepgate` (null: there is none).
   */
  async accessLog(id, milliseconds = 10_000) {
    const known = this.#accessLog.get(id);
    if (known) return known;
    const line = new Promise((resolve) => this.#accessLogWaiters.set(id, resolve));
    return within(milliseconds, line, `no line in the access log for request \`${id}\``);
  }

  /** Waits for a message in the log. */
  async logged(pattern, milliseconds = 10_000) {
    if (pattern.test(this.log)) return;
    const seen = new Promise((resolve) => this.#logWaiters.add({ pattern, resolve }));
    await within(milliseconds, seen, `${pattern} is not in the log`);
  }

  /**
   * One connection to each worker: `[connection of worker 0, connection of worker 1, …]`. The kernel spreads
   * connections over the workers, and each worker counts its own; so connections are opened one at a time, until
   * every worker has one. Nothing else may connect to this listener meanwhile.
   */
  async connections(name) {
    const turn = (this.#opening.get(name) ?? Promise.resolve()).then(() => this.#oneToEachWorker(name));
    this.#opening.set(name, turn.catch(() => {}));
    return turn;
  }

  async #oneToEachWorker(name) {
    const found = new Array(this.concurrency);
    const pattern = `^listener\\.${name}\\.worker_\\d+\\.downstream_cx_total$`;
    let before = await this.stats(pattern);
    for (let attempt = 0; attempt < 100 && Object.keys(found).length < this.concurrency; attempt += 1) {
      const connection = await connect(this.port(name));
      const after = await eventually(5_000, "the connection is counted", async () => {
        const now = await this.stats(pattern);
        return total(now) > total(before) && now;
      });
      const [stat] = [...after].find(([stat, value]) => value > (before.get(stat) ?? 0));
      const worker = Number(/worker_(\d+)/.exec(stat)[1]);
      before = after;
      if (found[worker]) connection.close();
      else found[worker] = connection;
    }
    assert.equal(Object.keys(found).length, this.concurrency, "every worker has a connection");
    return found;
  }

  /** Fails when a VM has trapped or a gate has panicked. */
  assertNoTrap() {
    const trap = this.log.split("\n").find((line) => TRAP.test(line));
    assert.equal(trap, undefined, "no gate has trapped");
    assert.equal(this.#child.exitCode ?? this.#child.signalCode, null, "Envoy is still running");
  }

  /** Ends the process and removes its directory. Fails when a secret stands in a log or in the name of a counter. */
  async stop() {
    let counters = "";
    try {
      const serves = this.#ports.size > 0 && this.#child.exitCode === null && this.#child.signalCode === null;
      if (serves) counters = await this.admin("/stats?filter=wasmcustom");
    } finally {
      await this.#end();
    }
    assertKeepsSecrets([this.log, counters, ...this.#verdicts].join("\n"), "a log or counter of Envoy");
  }

  async #end() {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill("SIGTERM");
      const forced = setTimeout(() => this.#child.kill("SIGKILL"), STOPPED_WITHIN);
      await this.exited.catch(() => {});
      clearTimeout(forced);
    }
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #adminPort() {
    const file = path.join(this.#directory, "admin");
    if (!existsSync(file)) return undefined;
    const [, port] = /:(\d+)$/.exec((await readFile(file, "utf8")).trim()) ?? [];
    return port && Number(port);
  }

  #accessed(line) {
    const entry = JSON.parse(line);
    this.#verdicts.add(`${entry.details} ${entry.reason}`);
    if (!entry.id) return;
    this.#accessLog.set(entry.id, entry);
    this.#accessLogWaiters.get(entry.id)?.(entry);
  }

  #logged(line) {
    this.log += `${line}\n`;
    for (const waiter of this.#logWaiters) {
      if (!waiter.pattern.test(this.log)) continue;
      this.#logWaiters.delete(waiter);
      waiter.resolve();
    }
  }
}

// How a trap shows: the function that failed, the SDK's own report of a panic, and what Envoy does about it.
const TRAP = /Function: \S+ failed|panicked at|Uncaught RuntimeError|Plugin configured to fail|vm (creation|has) failed/i;

/** The file that the listeners are read from, where they can be replaced. */
const LISTENERS = "listeners.json";

function bootstrap({ listeners, clusters, extraHcm, replaceable }) {
  return {
    admin: { address: loopback(0) },
    ...(replaceable && {
      node: { id: "test", cluster: "test" },
      dynamic_resources: { lds_config: { path_config_source: { path: replaceable }, resource_api_version: "V3" } },
    }),
    static_resources: {
      listeners: replaceable ? [] : listeners.map((listener) => listenerOf(listener, extraHcm)),
      clusters: Object.entries(clusters).map(([name, cluster]) =>
        typeof cluster === "number" ? clusterOf(name, cluster) : { name, ...cluster },
      ),
    },
  };
}

function discoveryResponse(listeners, extraHcm) {
  const type = "type.googleapis.com/envoy.config.listener.v3.Listener";
  return JSON.stringify({ resources: listeners.map((listener) => ({ "@type": type, ...listenerOf(listener, extraHcm) })) });
}

function listenerOf(listener, extraHcm) {
  const { name, port = 0, cluster = "app", maxHeaders, before = [] } = listener;
  const filters = listener.config === undefined ? [] : [...before, gateFilter(listener)];
  const manager = {
    "@type": `${EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: name,
    codec_type: "AUTO",
    ...(maxHeaders && {
      max_request_headers_kb: 8192,
      common_http_protocol_options: { max_headers_count: maxHeaders },
    }),
    http_protocol_options: { enable_trailers: true },
    http2_protocol_options: { allow_connect: true },
    upgrade_configs: [{ upgrade_type: "websocket" }],
    route_config: {
      virtual_hosts: [{ name: "all", domains: ["*"], routes: [{ match: { prefix: "" }, route: { cluster } }] }],
    },
    http_filters: [...filters, extension("filters.http.router.v3.Router", "envoy.filters.http.router")],
    access_log: [accessLog()],
    ...extraHcm,
    ...listener.extraHcm,
  };
  return {
    name,
    stat_prefix: name,
    address: loopback(port),
    filter_chains: [{ filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }] }],
  };
}

function gateFilter({ config, configAs = "string", env = {}, vmId = "", allowOnHeadersStopIteration, failurePolicy, module }) {
  return extension("filters.http.wasm.v3.Wasm", "stepgate", {
    config: {
      name: "stepgate",
      configuration: gateConfiguration(config, configAs),
      ...(failurePolicy && { failure_policy: failurePolicy }),
      ...(allowOnHeadersStopIteration !== undefined && {
        allow_on_headers_stop_iteration: allowOnHeadersStopIteration,
      }),
      vm_config: {
        vm_id: vmId,
        runtime: "envoy.wasm.runtime.v8",
        code: { local: { filename: module ?? stepgateModule() } },
        environment_variables: { key_values: env },
      },
    },
  });
}

function gateConfiguration(config, as) {
  if (as === "struct") return { "@type": `${GOOGLE}.Struct`, value: config };
  return { "@type": `${GOOGLE}.StringValue`, value: typeof config === "string" ? config : JSON.stringify(config) };
}

function clusterOf(name, port) {
  return {
    name,
    type: "STATIC",
    connect_timeout: "5s",
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: loopback(port) } }] }],
    },
    typed_extension_protocol_options: {
      "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": `${EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: { http_protocol_options: { enable_trailers: true } },
        common_http_protocol_options: { max_headers_count: 5000 },
      },
    },
  };
}

function accessLog() {
  return extension("access_loggers.stream.v3.StdoutAccessLog", "envoy.access_loggers.stdout", {
    log_format: {
      json_format: {
        id: `%REQ(${REQUEST_ID})%`,
        code: "%RESPONSE_CODE%",
        details: "%RESPONSE_CODE_DETAILS%",
        flags: "%RESPONSE_FLAGS%",
        reason: "%FILTER_STATE(wasm.stepgate:PLAIN)%",
      },
    },
  });
}

const EXTENSIONS = "type.googleapis.com/envoy.extensions";
const GOOGLE = "type.googleapis.com/google.protobuf";

/** An extension by its type, below `envoy.extensions`. */
export function extension(type, name, config = {}) {
  return { name, typed_config: { "@type": `${EXTENSIONS}.${type}`, ...config } };
}

/** An address on loopback. */
export function loopback(port) {
  return { socket_address: { address: "127.0.0.1", port_value: port } };
}

function requiredFile(variable, fallback) {
  const file = process.env[variable] ?? fallback;
  if (!file) throw new Error(`${variable} is not set: it names the Envoy binary to test with (\`make test\` sets it)`);
  if (!existsSync(file)) throw new Error(`${variable}: there is no file \`${file}\` (\`make test\` provides it)`);
  return path.resolve(file);
}

/** A page of Envoy's admin interface. */
export function get(port, page) {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: "127.0.0.1", port, path: page, agent: false, timeout: 5_000 }, async (response) => {
      let body = "";
      try {
        for await (const chunk of response.setEncoding("utf8")) body += chunk;
        resolve(body);
      } catch (error) {
        reject(error);
      }
    });
    request.once("error", reject);
    request.once("timeout", () => request.destroy(new Error(`${page} takes too long`)));
  });
}

async function within(milliseconds, promise, complaint) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${complaint} (within ${milliseconds} ms)`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function lines(stream, take) {
  let rest = "";
  stream.setEncoding("utf8").on("data", (text) => {
    const complete = (rest + text).split("\n");
    rest = complete.pop();
    complete.forEach(take);
  });
  stream.on("close", () => rest && take(rest));
}

/** Whatever ends this process (a failed test, an interrupt) ends Envoy as well. */
function endWithThisProcess(child, directory) {
  const end = () => {
    child.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  };
  process.once("exit", end);
  child.once("close", () => process.removeListener("exit", end));
}

function total(stats) {
  return [...stats.values()].reduce((sum, value) => sum + value, 0);
}
