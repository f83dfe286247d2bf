// Envoy as a child process, with one of the files in envoy/ as it is, or with other ports in it.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { parse } from "yaml";

import { DemoError } from "./demo-error.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const READY_MS = 30_000;
const STOP_MS = 5_000;
const LOG_LINES = 15;

/** The arguments that run a file itself. */
export const asItIs = (file) => ["--config-path", file];

/**
 * The arguments that run a file with these addresses in it, and with the gate's configuration, and all around it, as
 * `adjustGate` makes them.
 */
export function withAddresses(file, { ports, issuer, publicUrl, wasm, adjustGate = () => {} }) {
  const config = parse(readFileSync(`${ROOT}${file}`, "utf8"));
  const [listener] = config.static_resources.listeners;
  const { config: plugin } = listener.filter_chains[0].filters[0].typed_config.http_filters
    .find(({ name }) => name === "stepgate").typed_config;
  const endpoint = (cluster) => config.static_resources.clusters
    .find(({ name }) => name === cluster).load_assignment.endpoints[0].lb_endpoints[0].endpoint;

  listener.address.socket_address.port_value = ports.portal;
  config.admin.address.socket_address.port_value = ports.admin;
  endpoint("app").address.socket_address.port_value = ports.app;
  endpoint("idp").address.socket_address.port_value = ports.provider;
  plugin.vm_config.code.local.filename = wasm;
  plugin.configuration.value.provider.issuer = issuer;
  plugin.configuration.value.client.redirect_uri = `${publicUrl}/callback`;
  adjustGate(plugin.configuration.value, config);
  return ["--config-yaml", JSON.stringify(config)];
}

/** Resolves when Envoy serves. `onAccess` gets each line of the access log, as an object; `onLog` each of Envoy's own log. */
export async function startEnvoy({ binary, configuration, environment, adminPort, signal, onAccess = () => {}, onLog = () => {} }) {
  const child = spawn(binary, [
    ...configuration,
    "--use-dynamic-base-id",
    "--concurrency", "2",
    "--log-level", "warning", "--component-log-level", "wasm:info",
    "--file-flush-interval-msec", "50", // a person waits for the access log
  ], {
    cwd: ROOT,
    env: { ...process.env, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true, // Ctrl-C is for the runner alone
  });

  const lastLines = [];
  createInterface({ input: child.stderr }).on("line", (line) => {
    onLog(line);
    lastLines.push(line);
    if (lastLines.length > LOG_LINES) lastLines.shift();
  });
  createInterface({ input: child.stdout }).on("line", (line) => onAccess(JSON.parse(line)));

  const exited = new Promise((resolve) => {
    child.once("error", (error) => resolve({ reason: `could not be started: ${error.message}`, lastLines }));
    child.once("close", (code, killedBy) => resolve({ reason: `ended with ${killedBy ?? `code ${code}`}`, lastLines }));
  });
  const killWithParent = () => child.kill("SIGKILL");
  process.once("exit", killWithParent);
  exited.then(() => process.off("exit", killWithParent));

  async function stop() {
    if (child.exitCode !== null || child.signalCode !== null || !child.pid) return;
    child.kill("SIGTERM");
    const hurry = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await exited;
    clearTimeout(hurry);
  }

  const gaveUp = new AbortController();
  const ended = exited.then(({ reason, lastLines: lines }) => {
    throw new DemoError([`Envoy ${reason}.`, ...lines.map((line) => `  ${line}`)].join("\n"));
  });
  try {
    await Promise.race([ready(adminPort, AbortSignal.any([gaveUp.signal, signal].filter(Boolean))), ended]);
  } catch (error) {
    gaveUp.abort();
    await stop();
    throw error;
  }
  return { pid: child.pid, exited, stop };
}

async function ready(adminPort, signal) {
  const deadline = Date.now() + READY_MS;
  while (Date.now() < deadline) {
    const answer = await fetch(`http://127.0.0.1:${adminPort}/ready`, { signal }).catch(() => undefined);
    if (answer?.ok) return;
    await delay(100, undefined, { signal });
  }
  throw new DemoError(`Envoy was not ready within ${READY_MS / 1000} s.`);
}
