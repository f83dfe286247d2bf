// Runtimes that read the core from a file: Deno and Node.

import { readFile } from "node:fs/promises";

import { ConfigurationError, makeGate } from "./gate.js";

/**
 * For a POST. On a connection that was used before, Deno's client makes a request again when it finds the connection closed; on
 * one of its own it does not.
 */
const once = globalThis.Deno ? { client: globalThis.Deno.createHttpClient({ poolMaxIdlePerHost: 0 }) } : {};

let compiled;

/** Makes a gate. Rejects with a `ConfigurationError` when the configuration is not acceptable. */
export async function createGate(options) {
  compiled ??= readFile(new URL("stepgate_core_bg.wasm", import.meta.url)).then((bytes) => WebAssembly.compile(bytes));
  return makeGate(await compiled, options, false, once);
}

export { ConfigurationError };
