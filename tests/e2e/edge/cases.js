// Gates for the decision cases, in whatever runtime this is: the request's field `x-test-gate` names the gate. Their clocks stand
// at the time that the cases were made for; the background has fetched a minute before.

const MINUTE = 60_000;

/**
 * @param {object} plan  `{ now, upstream, gates: { [name]: { config, provider } } }`, the latter two being ports
 * @param {object} edge  the package's own, as this runtime finds them
 * @param {typeof import("../../../edge/native.js").createGate} edge.createGate
 * @param {typeof import("../../../edge/web.js").answer} edge.answer
 */
export function startCases({ now, upstream, gates }, { createGate, answer }) {
  const made = new Map();
  const decided = new Map();

  async function make(name) {
    const { config, provider } = gates[name];
    const clock = { millis: now * 1000 - MINUTE };
    const gate = await createGate({
      config,
      // A fetch takes its time.
      now: () => (clock.millis += 1),
      fetch: (url, init) => fetch(`http://127.0.0.1:${provider}${new URL(url).pathname}`, init),
      onDecision: ({ decision, reason }, asked) => {
        const id = asked.id ?? (asked.request?.headers ?? new Headers(asked.message.headers)).get("x-test-id");
        decided.set(id, { decision, reason });
      },
      onFetch() {},
    });
    await gate.refresh();
    return { gate, clock };
  }

  /** The gate of this name, its clock set. */
  async function gateOf(name) {
    if (!made.has(name)) made.set(name, make(name));
    const { gate, clock } = await made.get(name);
    clock.millis = now * 1000 - 1;
    return gate;
  }

  return {
    upstream,
    gate: gateOf,
    /**
     * Hands a request to a gate that the runtime itself would have refused: as the adapters do, but not by one. Its characters
     * are bytes.
     */
    async hand({ gate: name, id, request }) {
      const gate = await gateOf(name);
      const decision = await gate.decide(new Handed(request, gate, id));
      if (decision.step !== "forward") return answer(request, decision);
      const removed = decision.removed.map((field) => field.toLowerCase());
      const kept = (request.headers ?? []).filter(([field]) => !removed.includes(field.toLowerCase()));
      const headers = new Headers([...kept, ...decision.added, ["x-test-id", id]]);
      return fetch(`http://127.0.0.1:${upstream}${request.path}`, { method: request.method, headers });
    },
    /** What was decided on the request of this ID, and how many requests are on hold. */
    async told(id) {
      let waiting = 0;
      for (const one of made.values()) waiting += (await one).gate.waiting;
      return { ...decided.get(id), waiting };
    },
  };
}

/** A request as the core is to see it. */
class Handed {
  #headers;
  #decoded;

  constructor({ method, authority, path, headers }, gate, id) {
    // Where the runtime takes fields for UTF-8, there are no bytes that are none.
    this.#decoded = (text) => (gate.asUtf8 ? new TextDecoder().decode(Uint8Array.from(text, (byte) => byte.charCodeAt(0))) : text);
    this.#headers = headers;
    this.id = id;
    this.method = method;
    this.authority = this.#decoded(authority);
    this.path = this.#decoded(path);
    this.values = this.#all(gate.header)?.join("\0");
    this.cookies = this.#all("cookie")?.join("; ") ?? "";
  }

  /** Without fields: there is no telling which there are. */
  fields() {
    if (this.#headers === null) throw new Error("no fields");
    return this.#headers.flat().map((text) => `${this.#decoded(text)}\0`).join("");
  }

  #all(name) {
    const fields = (this.#headers ?? []).filter(([field]) => field.toLowerCase() === name);
    return fields.length === 0 ? undefined : fields.map(([, value]) => this.#decoded(value));
  }
}

/** The same as a handler of the Fetch API. `/told/ID` tells what was decided, and `/hand` hands over a request. */
export function casesHandler(cases) {
  return async (request, context) => {
    const name = request.headers.get("x-test-gate");
    if (name === null && request.method === "POST") return cases.hand(await request.json());
    if (name === null) return Response.json(await cases.told(request.url.split("/told/")[1]));
    const gate = await cases.gate(name);
    return gate.handle(request, (passed) => {
      const [, target] = /^[^:]+:\/\/[^/?#]*(.*)$/s.exec(passed.url);
      return fetch(`http://127.0.0.1:${cases.upstream}${target}`, passed);
    }, context);
  };
}
