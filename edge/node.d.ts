import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

import type { Gate } from "./index.d.ts";

export * from "./index.d.ts";

/** A listener for requests. */
export type RequestListener = (request: IncomingMessage, response: ServerResponse) => void;

/** An app: a listener for each event. `fields` are to be added to the answer to an upgrade. */
export interface App {
  request: RequestListener;
  upgrade?: (request: IncomingMessage, socket: Duplex, head: Uint8Array, fields: [string, string][]) => void;
}

/** Listeners with a gate in front. */
export interface Listeners {
  request: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  upgrade?: (request: IncomingMessage, socket: Duplex, head: Uint8Array) => Promise<void>;
  /** Listens to a server's events. */
  attach<S extends Server>(server: S): S;
}

/** Listeners for a server, with a gate in front of an app. A gate whose configuration is refused answers 503 to everything. */
export function protect(gate: Gate | Promise<Gate>, app: RequestListener | App): Listeners;

/** An app at another origin. Everything streams, both ways. */
export function proxy(origin: string | undefined): App;
