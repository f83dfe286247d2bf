// A gate as a module worker of workerd.

import { Guard } from "./guard.js";

export { ConfigurationError, createGate } from "./workerd.js";

/**
 * A worker with a gate in front of an app. The gate is made at an isolate's first request, when bindings are there. A gate whose
 * configuration is refused answers 503 to everything.
 */
export function protect(makeGate, forward) {
  let guard;
  const guarded = (env) => (guard ??= new Guard(call(makeGate, env)));
  return {
    fetch(request, env, context) {
      return guarded(env).handle(request, (passed) => forward(passed, env, context), context);
    },
    /** For a worker with a schedule: fetches what is due, so that no request waits for it. */
    async scheduled(_, env, context) {
      await (await guarded(env).ready())?.refresh(context);
    },
  };
}

/** As a promise, also where it throws at once. */
async function call(makeGate, env) {
  return makeGate(env);
}
