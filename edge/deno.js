// A gate as a handler of Deno.serve.

import { Guard } from "./guard.js";

export { ConfigurationError, createGate } from "./native.js";

/**
 * A handler with a gate in front of an app. A gate whose configuration is refused answers 503 to everything. The app gets the
 * request as it is let through, and last as it was sent: no other can be upgraded to a WebSocket.
 */
export function protect(gate, forward) {
  const guard = new Guard(gate);
  // With a request of Deno.serve, `fetch` would follow an app's redirects by itself: to where the gate has not judged.
  const app = (passed, info, sent) => forward(new Request(passed, { redirect: "manual" }), info, sent);
  return (request, info) => guard.handle(request, (passed) => app(passed, info, request));
}
