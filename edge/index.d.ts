/** A gate's options. */
export interface Options {
  /** The configuration: an object, or its JSON. */
  config: object | string;
  /** What `{ "env": NAME }` in the configuration refers to; only strings count. */
  env?: Record<string, unknown>;
  /** Reaches the provider. By default the runtime's own. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** The time, in milliseconds since the Unix epoch. By default `Date.now`. */
  now?: () => number;
  /** Called for each request. */
  onDecision?: (decision: Decision) => void;
  /** Called for each fetch. By default a problem is a warning on the console. */
  onFetch?: (fetch: Fetched) => void;
}

/** What was decided on a request. */
export interface Decision {
  decision: "forward" | "report" | "redirect" | "challenge" | "bad_request" | "forbidden" | "unavailable";
  /** A stable code. */
  reason: string;
  /** The names of the rules that asked. */
  rules: string[];
}

/** What became of a fetch. */
export interface Fetched {
  endpoint: "metadata" | "keys" | "token" | "pushed_authorization";
  url: string;
  /** `ok`, or a code. */
  result: string;
  problem: string | null;
}

/** Where work may go on behind an answer. */
export interface Context {
  waitUntil?(promise: Promise<unknown>): void;
}

/** One configuration in one isolate. */
export interface Gate {
  /** Handles a request. `forward` is called only for what is let through. */
  handle(request: Request, forward: (request: Request) => Response | Promise<Response>, context?: Context): Promise<Response>;
  /** Fetches what is due, and waits for it. */
  refresh(context?: Context): Promise<void>;
  /** How many requests are on hold. */
  readonly waiting: number;
  /** The memory of all gates of this isolate together, in bytes. */
  readonly memory: number;
  /** Gives all memory back. From then on the gate answers 503. */
  close(): void;
}

/** Why a configuration was refused. */
export class ConfigurationError extends Error {
  /** Every problem, each with its path in the document. */
  readonly problems: { path: string; problem: string }[];
}

/** Makes a gate. Rejects with a `ConfigurationError` when the configuration is not acceptable. */
export function createGate(options: Options): Promise<Gate>;
