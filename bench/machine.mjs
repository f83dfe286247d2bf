// The machine's two cores, and what the kernel tells of a process.

import { readFileSync } from "node:fs";
import net from "node:net";

const [first, ...others] = allowedCores();
if (others.length === 0) throw new Error("the benchmark needs two cores: one for Envoy, one for the load generator");

/** Envoy has this one to itself. */
export const ENVOY_CORE = first;

/** The load generator's, and the authorizer's that ext_authz asks. */
export const LOAD_CORE = others.at(-1);

/** A command that runs on one core: `[command, arguments]` for `spawn`. */
export function pinned(core, command, args) {
  return ["taskset", ["--cpu-list", String(core), command, ...args]];
}

/** The CPU time that a process has had, in seconds, all threads together. */
export function cpuSeconds(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const [user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13).map(Number);
  return (user + system) / CLOCK_TICKS;
}

/** A port that was free a moment ago. */
export async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const CLOCK_TICKS = 100; // of a second, on every Linux that Node.js runs on

function allowedCores() {
  const [, list] = /^Cpus_allowed_list:\s+(\S+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  return list.split(",").flatMap((range) => {
    const [from, to = from] = range.split("-").map(Number);
    return Array.from({ length: to - from + 1 }, (_, at) => from + at);
  });
}
