// A gate as a handler of Deno.serve.

import { Guard } from "./guard.js";

export { ConfigurationError, createGate } from "./native.js";

/** A handler with a gate in front of an app. A gate whose configuration is refused answers 503 to everything. */
export function protect(gate, forward) {
  const guard = new Guard(gate);
  return (request, info) => guard.handle(request, (passed) => forward(passed, info));
}
