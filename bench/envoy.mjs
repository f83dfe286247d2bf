// One Envoy, on a core of its own.

import { spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

import { envoyBinary, extension, get, loopback } from "../tests/e2e/support/envoy.mjs";
import { eventually, standingStill } from "../tests/e2e/support/wait.mjs";
import { ENVOY_CORE, pinned } from "./machine.mjs";

const READY_WITHIN = 60_000;

/**
 * Starts Envoy; it may not serve yet.
 *
 * @param {Record<string, object[]>} listeners  the filters of each
 * @param {object} [options]
 * @param {string} [options.authorizer]  the socket that ext_authz asks
 * @param {number} [options.port]        of the only listener, for somebody who does not wait for Envoy to tell it
 * @param {number} [options.workers]
 */
export async function launchEnvoy(listeners, { authorizer, port = 0, workers = 1 } = {}) {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-bench-"));
  const file = path.join(directory, "bootstrap.json");
  await writeFile(file, JSON.stringify(bootstrap(listeners, { authorizer, port })));
  const child = spawn(...pinned(ENVOY_CORE, envoyBinary(), [
    "--config-path", file, "--admin-address-path", path.join(directory, "admin"),
    "--concurrency", String(workers), "--log-level", "warning", "--use-dynamic-base-id",
  ]), { stdio: ["ignore", "ignore", "pipe"] });
  return new Envoy(child, directory);
}

class Envoy {
  #child;
  #directory;
  #admin;
  #ports = new Map();

  /** What it has logged. */
  log = "";

  constructor(child, directory) {
    this.#child = child;
    this.#directory = directory;
    this.pid = child.pid;
    this.exited = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    this.exited.catch(() => {});
    child.stderr.setEncoding("utf8").on("data", (text) => { this.log += text; });
    // Whatever ends this process ends Envoy as well.
    const end = () => {
      child.kill("SIGKILL");
      rmSync(directory, { recursive: true, force: true });
    };
    process.once("exit", end);
    child.once("close", () => process.removeListener("exit", end));
  }

  get alive() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async ready() {
    await eventually(READY_WITHIN, "Envoy is ready", async () => {
      if (!this.alive) return true;
      const file = path.join(this.#directory, "admin");
      this.#admin ||= existsSync(file) && Number(readFileSync(file, "utf8").split(":").at(-1));
      return this.#admin && (await this.admin("/ready")).startsWith("LIVE");
    });
    if (!this.alive) throw new Error(`Envoy ended before it served:\n${this.log}`);
    const { listener_statuses: statuses } = JSON.parse(await this.admin("/listeners?format=json"));
    for (const { name, local_address: address } of statuses) this.#ports.set(name, address.socket_address.port_value);
  }

  port(listener) {
    return this.#ports.get(listener);
  }

  admin(page) {
    return get(this.#admin, page);
  }

  /** The sum of the counters whose names match each pattern. */
  counters(patterns) {
    return standingStill(async () => {
      const { stats } = JSON.parse(await this.admin("/stats?format=json&type=Counters"));
      return Object.fromEntries(Object.entries(patterns).map(([name, pattern]) => [
        name, stats.reduce((sum, stat) => sum + (pattern.test(stat.name) ? stat.value : 0), 0),
      ]));
    });
  }

  async stop() {
    if (this.alive) {
      this.#child.kill("SIGTERM");
      const forced = setTimeout(() => this.#child.kill("SIGKILL"), 5_000);
      await this.exited.catch(() => {});
      clearTimeout(forced);
    }
    await rm(this.#directory, { recursive: true, force: true });
  }
}

function bootstrap(listeners, { authorizer, port }) {
  return {
    admin: { address: loopback(0) },
    static_resources: {
      listeners: Object.entries(listeners).map(([name, filters]) => listenerOf(name, filters, port)),
      clusters: [
        ...(authorizer ? [clusterOf("authorizer", { pipe: { path: authorizer } })] : []),
        // The gate with `callback` names it, and never calls it here.
        clusterOf("idp", loopback(1)),
      ],
    },
  };
}

function listenerOf(name, filters, port) {
  const manager = extension("filters.network.http_connection_manager.v3.HttpConnectionManager", "envoy.filters.network.http_connection_manager", {
    stat_prefix: name,
    route_config: {
      virtual_hosts: [{
        name: "all",
        domains: ["*"],
        routes: [{ match: { prefix: "/" }, direct_response: { status: 200, body: { inline_string: "ok" } } }],
      }],
    },
    http_filters: [...filters, extension("filters.http.router.v3.Router", "envoy.filters.http.router")],
  });
  return { name, stat_prefix: name, address: loopback(port), filter_chains: [{ filters: [manager] }] };
}

function clusterOf(name, address) {
  return {
    name,
    type: "STATIC",
    connect_timeout: "5s",
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] },
  };
}
