import type { Gate } from "./index.d.ts";

export * from "./index.d.ts";

/**
 * A handler with a gate in front of an app. A gate whose configuration is refused answers 503 to everything. The app gets the
 * request as it is let through, and last as it was sent: no other can be upgraded to a WebSocket.
 */
export function protect<Info = unknown>(
  gate: Gate | Promise<Gate>,
  forward: (request: Request, info: Info, sent: Request) => Response | Promise<Response>,
): (request: Request, info: Info) => Promise<Response>;
