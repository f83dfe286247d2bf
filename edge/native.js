// Runtimes that read the core from a file: Deno and Node.

import { readFile } from "node:fs/promises";

import { ConfigurationError, makeGate } from "./gate.js";

/**
 * On a connection that was used before, Deno's client makes a request again when it finds the connection closed; on one of its own
 * it does not.
 */
const inDeno = (client) => (init) => ({ ...init, client });

/** Node's client makes a request again that is answered with 421 (Fetch section 4.6), unless its body was a stream. */
function inNode(init) {
  const body = new Blob([init.body]);
  return { ...init, headers: { ...init.headers, "content-length": String(body.size) }, body: body.stream(), duplex: "half" };
}

const once = globalThis.Deno ? inDeno(globalThis.Deno.createHttpClient({ poolMaxIdlePerHost: 0 })) : inNode;

let compiled;

/** Makes a gate. Rejects with a `ConfigurationError` when the configuration is not acceptable. */
export async function createGate(options) {
  compiled ??= readFile(new URL("stepgate_core_bg.wasm", import.meta.url)).then((bytes) => WebAssembly.compile(bytes));
  return makeGate(await compiled, options, false, once);
}

export { ConfigurationError };
