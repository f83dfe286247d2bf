// Runtimes that read the core from a file: Deno and Node.

import { readFile } from "node:fs/promises";

import { ConfigurationError, makeGate } from "./gate.js";

let compiled;

/** Makes a gate. Rejects with a `ConfigurationError` when the configuration is not acceptable. */
export async function createGate(options) {
  compiled ??= readFile(new URL("stepgate_core_bg.wasm", import.meta.url)).then((bytes) => WebAssembly.compile(bytes));
  return makeGate(await compiled, options);
}

export { ConfigurationError };
