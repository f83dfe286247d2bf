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

/** The resident memory of a process, in bytes. */
export function residentBytes(pid) {
  return 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);
}

/**
 * The linear memories of a process's Wasm VMs, in bytes. V8 reserves gigabytes of address space for each, of which the VM's
 * pages are the part that can be written to, at the start; nothing else in Envoy looks like this.
 */
export function linearMemories(pid) {
  const mappings = readFileSync(`/proc/${pid}/maps`, "utf8").trim().split("\n").map((line) => {
    const [, from, to, access] = /^(\w+)-(\w+) (\S+)/.exec(line);
    return { from: BigInt(`0x${from}`), to: BigInt(`0x${to}`), access };
  });
  return mappings.flatMap(({ from, to, access }, at) => {
    const rest = mappings[at + 1];
    const reserved = rest?.from === to && rest.access === "---p" && rest.to - rest.from > RESERVATION;
    return access === "rw-p" && reserved ? [Number(to - from)] : [];
  });
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
const RESERVATION = 1n << 31n;

function allowedCores() {
  const [, list] = /^Cpus_allowed_list:\s+(\S+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  return list.split(",").flatMap((range) => {
    const [from, to = from] = range.split("-").map(Number);
    return Array.from({ length: to - from + 1 }, (_, at) => from + at);
  });
}
