// How much memory Envoy and each of its VMs have, as Linux tells it.

import { readFile } from "node:fs/promises";

const KIBIBYTE = 1024;
const GIBIBYTE = 1024 ** 3;

/**
 * The size of each VM's linear memory in bytes, by address. V8 reserves more than 4 GiB for each and makes as much of it
 * accessible as the module has asked for, so it is the accessible mapping right before a huge one that is not. It never
 * shrinks: what is measured is the most that the VM has needed so far.
 */
export async function vmMemories(pid) {
  const mappings = (await readFile(`/proc/${pid}/maps`, "utf8")).split("\n").filter(Boolean).map((line) => {
    const [, start, end, access] = /^(\w+)-(\w+) (\S+)/.exec(line);
    return { start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), access };
  });
  const isReserve = ({ start, end, access } = {}) => access === "---p" && end - start > 4 * GIBIBYTE;
  const memories = mappings.filter(({ end, access }, at) => {
    const next = mappings[at + 1];
    return access === "rw-p" && isReserve(next) && next.start === end;
  });
  return new Map(memories.map(({ start, end }) => [start, end - start]));
}

/** The memory of a process that is in RAM, in bytes. */
export async function residentMemory(pid) {
  const [, kibibytes] = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"));
  return Number(kibibytes) * KIBIBYTE;
}
