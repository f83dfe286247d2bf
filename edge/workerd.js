// workerd, which has the compiled core as a module.

import { ConfigurationError, makeGate } from "./gate.js";
import module from "./stepgate_core_bg.wasm";

/** Makes a gate. Rejects with a `ConfigurationError` when the configuration is not acceptable. */
export async function createGate(options) {
  return makeGate(module, options, true);
}

export { ConfigurationError };
