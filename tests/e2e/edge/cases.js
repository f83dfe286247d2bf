// Gates for the decision cases, in whatever runtime this is: the request's field `x-test-gate` names the gate. Their clocks stand
// at the time that the cases were made for; the background has fetched a minute before.

const MINUTE = 60_000;

/**
 * @param {object} plan  `{ now, upstream, gates: { [name]: { config, provider } } }`, the latter two being ports
 * @param {typeof import("../../../edge/native.js").createGate} createGate
 */
export function startCases({ now, upstream, gates }, createGate) {
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
        const id = (asked.request?.headers ?? new Headers(asked.message.headers)).get("x-test-id");
        decided.set(id, { decision, reason });
      },
      onFetch() {},
    });
    await gate.refresh();
    return { gate, clock };
  }

  return {
    upstream,
    /** The gate of this name, its clock set. */
    async gate(name) {
      if (!made.has(name)) made.set(name, make(name));
      const { gate, clock } = await made.get(name);
      clock.millis = now * 1000 - 1;
      return gate;
    },
    /** What was decided on the request of this ID, and how many requests are on hold. */
    async told(id) {
      let waiting = 0;
      for (const one of made.values()) waiting += (await one).gate.waiting;
      return { ...decided.get(id), waiting };
    },
  };
}

/** The same as a handler of the Fetch API. `/told/ID` tells what was decided. */
export function casesHandler(cases) {
  return async (request, context) => {
    const name = request.headers.get("x-test-gate");
    if (name === null) return Response.json(await cases.told(request.url.split("/told/")[1]));
    const gate = await cases.gate(name);
    return gate.handle(request, (passed) => {
      const [, target] = /^[^:]+:\/\/[^/?#]*(.*)$/s.exec(passed.url);
      return fetch(`http://127.0.0.1:${cases.upstream}${target}`, passed);
    }, context);
  };
}
