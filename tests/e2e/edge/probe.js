// A gate in whatever runtime this is, in front of an app that tells which fields it got. A field `x-told` asks for what the gate
// holds, and for the reasons of its decisions since it was last asked.

export function startProbe(createGate, config) {
  let made;
  let reasons = [];
  const onDecision = ({ reason }) => reasons.push(reason);
  const probe = {
    gate: () => (made ??= createGate({ config, onDecision, onFetch() {} })),
    async told() {
      const { waiting, memory } = await probe.gate();
      const told = { waiting, memory, reasons };
      reasons = [];
      return told;
    },
    /** The same as a handler of the Fetch API. */
    async handle(request, context) {
      if (request.headers.has("x-told")) return Response.json(await probe.told());
      const gate = await probe.gate();
      return gate.handle(request, (passed) => Response.json([...passed.headers]), context);
    },
  };
  return probe;
}
