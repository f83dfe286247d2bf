import type { Context, Gate } from "./index.d.ts";

export * from "./index.d.ts";

/** A module worker. */
export interface Worker<Env> {
  fetch(request: Request, env: Env, context: Context): Promise<Response>;
  scheduled(controller: unknown, env: Env, context: Context): Promise<void>;
}

/** A worker with a gate in front of an app. A gate whose configuration is refused answers 503 to everything. */
export function protect<Env = Record<string, unknown>>(
  makeGate: (env: Env) => Gate | Promise<Gate>,
  forward: (request: Request, env: Env, context: Context) => Response | Promise<Response>,
): Worker<Env>;
