// Load generators: wrk for as many requests as the worker answers, h2load for a constant rate.

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { LOAD_CORE, pinned } from "./machine.mjs";

const run = promisify(execFile);
const SCRIPT = fileURLToPath(new URL("wrk.lua", import.meta.url));
const CONNECTIONS = 32;

/**
 * Saturates a listener.
 *
 * @param {object} options
 * @param {string} options.url
 * @param {Record<string, string>} options.headers
 * @param {number} options.seconds
 * @param {{ file: string, from: number }} [options.tokens]  a new token for each request, from this byte of the file on
 * @returns {Promise<{ requests: number, seconds: number, rate: number }>}
 */
export async function saturate({ url, headers, seconds, tokens }) {
  const [command, args] = pinned(LOAD_CORE, "wrk", [
    "--threads", "1", "--connections", String(CONNECTIONS), "--duration", `${seconds}s`, "--script", SCRIPT,
    ...fields(headers, "Host"), url,
  ]);
  const env = { ...process.env, ...(tokens && { BENCH_TOKENS: tokens.file, BENCH_FROM: String(tokens.from) }) };
  const { stdout } = await run(command, args, { env });
  const { requests, microseconds, failed } = JSON.parse(stdout.trim().split("\n").at(-1));
  if (failed > 0) throw new Error(`wrk: ${failed} requests got no answer`);
  return { requests, seconds: microseconds / 1e6, rate: requests / (microseconds / 1e6) };
}

/** Asks at a constant rate, and gives the latencies of all answers in microseconds, sorted, by status. */
export async function paced({ url, headers, seconds, rate }) {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-h2load-"));
  try {
    const log = path.join(directory, "log");
    const [command, args] = pinned(LOAD_CORE, "h2load", [
      "--h1", "--threads", "1", "--clients", String(CONNECTIONS), "--duration", String(seconds), "--warm-up-time", "1",
      "--rps", String(rate / CONNECTIONS), "--log-file", log, ...fields(headers, ":authority"), url,
    ]);
    await run(command, args);
    const answers = (await readFile(log, "utf8")).trim().split("\n").map((line) => line.split("\t").map(Number));
    return {
      statuses: [...new Set(answers.map(([, status]) => status))],
      rate: answers.length / seconds,
      latencies: answers.map(([, , latency]) => latency).sort((a, b) => a - b),
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Both tools add a `Host` of their own, unless they are given one under the name that they know it by. */
function fields({ host, ...headers }, nameOfHost) {
  return Object.entries({ [nameOfHost]: host, ...headers }).flatMap(([name, value]) => ["-H", `${name}: ${value}`]);
}
