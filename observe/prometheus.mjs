// A Prometheus that scrapes one Envoy, for the tests and for the picture.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { stringify } from "yaml";

import { freePorts } from "../tests/e2e/demo-support.mjs";
import { eventually } from "../tests/e2e/support/wait.mjs";

const UNPACKED = process.env.PROMETHEUS ?? fileURLToPath(new URL("../.tools/prometheus", import.meta.url));
const ALERTS = fileURLToPath(new URL("alerts.yaml", import.meta.url));
const READY_MS = 30_000;
const STOP_MS = 10_000;

/** The path of `prometheus` or of `promtool`. */
export const program = (name) => path.join(UNPACKED, "usr/bin", name);

/** Starts it, with the alerts, and waits until it is ready. `adminUrl` is Envoy's admin page. */
export async function startPrometheus({ adminUrl, interval }) {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-prometheus-"));
  const [port] = await freePorts(1);
  await writeFile(path.join(directory, "prometheus.yml"), stringify({
    global: { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: interval },
    rule_files: [ALERTS],
    scrape_configs: [{
      job_name: "envoy", metrics_path: "/stats/prometheus", static_configs: [{ targets: [new URL(adminUrl).host] }],
    }],
  }));
  const child = spawn(program("prometheus"), [
    `--config.file=${path.join(directory, "prometheus.yml")}`,
    `--storage.tsdb.path=${path.join(directory, "data")}`,
    `--web.listen-address=127.0.0.1:${port}`,
    "--log.level=error",
  ], { cwd: directory, stdio: ["ignore", "ignore", "inherit"] });
  const exited = once(child, "close");
  exited.catch(() => {});
  const killWithParent = () => child.kill("SIGKILL");
  process.once("exit", killWithParent);

  async function ask(page, parameters = {}) {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/${page}?${new URLSearchParams(parameters)}`);
    const { status, data, error } = await response.json();
    if (status !== "success") throw new Error(`${parameters.query ?? page}: ${error}`);
    return data;
  }

  async function stop() {
    if (child.pid && child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      const forced = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await exited;
      clearTimeout(forced);
    }
    process.off("exit", killWithParent);
    await rm(directory, { recursive: true, force: true });
  }

  const prometheus = {
    ask,
    /** The series that an expression gives now: `{ metric, value }`. */
    async query(query) {
      const { result } = await ask("query", { query });
      return result.map(({ metric, value: [, value] }) => ({ metric, value: Number(value) }));
    },
    /** Those that it gives over time: `{ metric, values }`, with pairs of seconds and a value. */
    async queryRange(query, start, end, step) {
      const { result } = await ask("query_range", { query, start, end, step });
      return result.map(({ metric, values }) => ({ metric, values: values.map(([time, value]) => [time, Number(value)]) }));
    },
    stop,
  };
  try {
    const ended = exited.then(([code]) => { throw new Error(`Prometheus ended with ${code}`); });
    ended.catch(() => {});
    await Promise.race([ended, eventually(READY_MS, "Envoy is scraped", async () => {
      const [up] = await prometheus.query("up");
      return up?.value === 1;
    })]);
    return prometheus;
  } catch (error) {
    await stop();
    throw error;
  }
}
