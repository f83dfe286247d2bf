// The host of the core in any runtime: it does the I/O that the core asks for, and decides nothing.

import { call, within } from "./call.js";
import { KeyRing } from "./keys.js";
import { Core, initSync } from "./stepgate_core.js";
import { handle } from "./web.js";

/** How many bodies of form_post answers are awaited at a time. One more, and the oldest is given up. */
export const MAX_COLLECTING = 256;

/** How often a gate looks for what is due in the background, in milliseconds. */
const LOOK_EVERY = 1000;

/** What is answered where the core cannot: it never lets a request through. */
export const UNAVAILABLE = Object.freeze({
  step: "answer",
  decision: "unavailable",
  reason: "gate_unavailable",
  rules: [],
  status: 503,
  fields: [["content-type", "text/plain; charset=utf-8"], ["cache-control", "no-store"], ["retry-after", "5"]],
  body: "This page is protected, and its gate is not available.\n",
});

/** Why a configuration was refused: every problem of it, each with its path in the document. */
export class ConfigurationError extends Error {
  name = "ConfigurationError";

  constructor(problems) {
    const lines = problems.map(({ path, problem }) => `\n  ${path || "configuration"}: ${problem}`);
    super(`${problems.length} problem${problems.length === 1 ? "" : "s"} in the configuration${lines.join("")}`);
    this.problems = problems;
  }
}

/** A gate: one configuration in one isolate. `makeGate` makes one. */
export class Gate {
  #core;
  #fetch;
  #onDecision;
  #onFetch;
  #now;
  #keys = new KeyRing();
  /** The fetches under way, by number: promises that are never rejected. */
  #flights = new Map();
  /** Requests whose body is awaited, oldest first, each with how to give it up. */
  #collecting = new Set();
  /** How the request before was let through. */
  #passed;
  #looked = 0;
  /** Where the core reads a request's head. */
  #page = new Uint8Array();

  constructor(core, asUtf8, { fetch, now, onDecision, onFetch }) {
    this.#core = core;
    this.#now = now;
    this.#fetch = fetch;
    this.#onDecision = onDecision;
    this.#onFetch = onFetch;
    /** The name of the header field that may carry a token, beside the cookie. */
    this.header = core.header;
    /** Whether the runtime takes header fields for UTF-8, and not for bytes. */
    this.asUtf8 = asUtf8;
  }

  /** How many requests are on hold. */
  get waiting() {
    return this.#core?.waiting ?? 0;
  }

  /**
   * Decides a request: at once where nothing has to be waited for, otherwise in a promise. An error of any kind is an answer of
   * 503. Only a request that its client has given up rejects.
   */
  decide(request, context) {
    try {
      const now = this.#now();
      if (now - this.#looked >= LOOK_EVERY || now < this.#looked) {
        this.#looked = now;
        this.#lookForDue(context);
      }
      const { method, authority, path, values, cookies } = request;
      const head = `${method}${authority}${path}${values ?? ""}${cookies}`;
      const length = values === undefined ? -1 : values.length;
      const bytes = this.#write(head);
      const message = this.#core.begin(now, bytes, method.length, authority.length, path.length, length, request);
      if (message === undefined) return this.#told(this.#passed, request);
      const step = JSON.parse(message);
      if (step.step === "forward") this.#passed = step;
      return isDecision(step) ? this.#told(step, request) : this.#goOn(step, request, context);
    } catch (error) {
      return this.#failed(error, request);
    }
  }

  /** The memory of all gates of this isolate together, in bytes. */
  get memory() {
    return memory.buffer.byteLength;
  }

  /** Handles a request of the Fetch API. `forward` is called only for what is let through. */
  handle(request, forward, context) {
    return handle(this, request, forward, context);
  }

  /** Fetches what is due, and waits for it. A worker may do so on a schedule, so that no request has to wait for keys. */
  async refresh(context) {
    this.#lookForDue(context);
    while (this.#flights.size > 0) await Promise.all(this.#flights.values());
  }

  /** Gives back all memory. From now on every request is answered with 503. */
  close() {
    this.#core?.free();
    this.#core = undefined;
  }

  #goOn(step, request, context) {
    const decision = this.#follow(step, request, context);
    // Some runtimes stop a request whose client is gone, without a word: not before it has left. WebCrypto takes no time.
    if (step.step !== "verify") context?.waitUntil?.(decision.then(ignore, ignore));
    return decision;
  }

  async #follow(step, request, context) {
    let gone;
    let id;
    try {
      while (!isDecision(step)) {
        ({ id } = step);
        const wait = this.#wait(step, request, context);
        if (step.step !== "verify") gone ??= new Gone(request.signal);
        const go = await (gone ? gone.orElse(wait) : wait);
        const message = go(this.#core, id, this.#now());
        id = undefined;
        step = JSON.parse(message);
      }
      return this.#told(step, request);
    } catch (error) {
      if (gone?.isGone) throw error;
      return this.#failed(error, request);
    } finally {
      gone?.forget();
      if (id !== undefined) this.#core?.forget(id);
    }
  }

  /** Waits for what a step asks for, and gives the way to tell the core. */
  async #wait(step, request, context) {
    switch (step.step) {
      case "fetch": {
        if (step.call) this.#lead(step, context);
        await within(step.wait, this.#flights.get(step.flight));
        return (core, id, now) => core.fetched(id, now);
      }
      case "verify": {
        const valid = await this.#keys.verify(step, this.#core.signed(step.id));
        return (core, id, now) => core.verified(id, now, valid);
      }
      case "body": {
        const body = await this.#collect(step, request);
        return (core, id, now) => core.collected(id, now, body);
      }
      default:
        throw new Error(`no step is called ${step.step}`);
    }
  }

  /** Writes a text to where the core reads it, and gives its length in bytes. */
  #write(text) {
    // As UTF-8, three bytes at most for each of its code units.
    if (text.length * 3 > this.#page.length || this.#page.buffer !== memory.buffer) {
      const size = Math.max(4096, text.length * 3);
      const at = this.#core.page(size); // which may make the memory grow, and its buffer another
      this.#page = new Uint8Array(memory.buffer, at, size);
    }
    return encoder.encodeInto(text, this.#page).written;
  }

  async #collect({ maxBytes, wait }, request) {
    const [oldest] = this.#collecting;
    if (this.#collecting.size >= MAX_COLLECTING) oldest();
    let giveUp;
    const givenUp = new Promise((resolve) => { giveUp = () => { this.#collecting.delete(giveUp); resolve(); }; });
    this.#collecting.add(giveUp);
    try {
      const body = Promise.resolve(request.body(maxBytes)).catch(ignore);
      return await within(wait, Promise.race([body, givenUp]));
    } finally {
      this.#collecting.delete(giveUp);
    }
  }

  #lookForDue(context) {
    const due = this.#core.due(this.#now());
    if (due !== undefined) for (const step of JSON.parse(due)) this.#lead(step, context);
  }

  /** Makes a call for all that wait for it. */
  #lead({ flight, call: what }, context) {
    const landing = call(this.#fetch, what)
      .then(({ status, body, failure }) => {
        const core = this.#core;
        const now = this.#now();
        const landed = failure ? core?.crash(flight, now, failure) : core?.land(flight, now, status, body);
        if (landed !== undefined) tell(this.#onFetch, JSON.parse(landed));
        // Keys after metadata.
        if (core) this.#lookForDue(context);
      })
      .catch((error) => console.error(error))
      .finally(() => this.#flights.delete(flight));
    this.#flights.set(flight, landing);
    context?.waitUntil?.(landing);
  }

  /** A listener gets no fields: there may be tokens in them. */
  #told(decision, request) {
    if (this.#onDecision) {
      const { decision: kind, reason, rules } = decision;
      tell(this.#onDecision, { decision: kind, reason, rules: [...rules] }, request);
    }
    return decision;
  }

  /** The core has not answered: it was closed, or has crashed, and says no more. */
  #failed(error, request) {
    if (this.#core) console.error(error);
    return this.#told(UNAVAILABLE, request);
  }
}

const encoder = new TextEncoder();

/** The core's memory. */
let memory;

/**
 * Makes a gate from the compiled core.
 *
 * @param {WebAssembly.Module} module
 * @param {import("./index.d.ts").Options} options
 * @param {boolean} [asUtf8]  whether the runtime takes header fields for UTF-8, and not for bytes
 * @param {(init: RequestInit) => RequestInit} [once]  what the runtime's `fetch` needs to be told so that it makes a POST once
 */
export function makeGate(module, { config, env = {}, fetch = globalThis.fetch, now = Date.now, onDecision, onFetch = warn }, asUtf8 = false, once = (init) => init) {
  memory ??= initSync({ module }).memory;
  const lookup = (name) => (typeof env[name] === "string" ? env[name] : undefined);
  const document = typeof config === "string" ? config : JSON.stringify(config) ?? "";
  let core;
  try {
    core = new Core(document, { lookup }, asUtf8);
  } catch (problems) {
    if (typeof problems !== "string") throw problems;
    throw new ConfigurationError(JSON.parse(problems));
  }
  // Called as a method of this gate it would be refused in some runtimes.
  const reach = (url, init) => fetch(url, init.method === "POST" ? once(init) : init);
  return new Gate(core, asUtf8, { fetch: reach, now, onDecision, onFetch });
}

function isDecision({ step }) {
  return step === "forward" || step === "answer";
}

/** A client that gives up. */
class Gone {
  #signal;
  #promise;
  #listener;

  constructor(signal) {
    if (!signal) return;
    this.#signal = signal;
    this.#promise = new Promise((_, reject) => {
      this.#listener = () => reject(signal.reason);
      if (signal.aborted) this.#listener();
      else signal.addEventListener("abort", this.#listener);
    });
    this.#promise.catch(ignore);
  }

  get isGone() {
    return this.#signal?.aborted ?? false;
  }

  orElse(promise) {
    return this.#promise ? Promise.race([promise, this.#promise]) : promise;
  }

  forget() {
    this.#signal?.removeEventListener("abort", this.#listener);
  }
}

/** Listeners have no say in what becomes of a request. */
function tell(listener, ...what) {
  try {
    listener(...what);
  } catch (error) {
    console.error(error);
  }
}

function warn({ endpoint, url, problem }) {
  if (problem) console.warn(`stepgate: ${endpoint} from ${url}: ${problem}`);
}

function ignore() {}
