// What the package's types promise, as users write it. `deno check` reads it; nobody runs it.

import { createServer } from "node:http";

import * as deno from "../../../dist/edge/deno.d.ts";
import { ConfigurationError, createGate, type Decision } from "../../../dist/edge/index.d.ts";
import * as node from "../../../dist/edge/node.d.ts";
import * as worker from "../../../dist/edge/worker.d.ts";

const config = { rules: [{ paths: ["/salary/**"] }] };

try {
  const gate = await createGate({
    config,
    env: { SECRET: "x" },
    fetch: (url, init) => fetch(url, init),
    onDecision: ({ decision, reason }: Decision) => console.log(decision, reason),
    onFetch: ({ endpoint, problem }) => console.log(endpoint, problem?.length),
  });
  const answer: Response = await gate.handle(new Request("https://app.example.com/"), (request) => fetch(request));
  await gate.refresh();
  gate.close();
  console.log(answer.status, gate.waiting);
} catch (error) {
  if (error instanceof ConfigurationError) console.log(error.problems.map(({ path }) => path));
}

interface Env {
  APP: { fetch(request: Request): Promise<Response> };
}

export default worker.protect<Env>(
  (env) => worker.createGate({ config, env: { ...env } }),
  (request, env) => env.APP.fetch(request),
);

Deno.serve(deno.protect(deno.createGate({ config }), (request) => fetch(request)));
Deno.serve(deno.protect(deno.createGate({ config }), (_request, _info, sent) => Deno.upgradeWebSocket(sent).response));

node.protect(node.createGate({ config: "{}" }), node.proxy("http://127.0.0.1:1")).attach(createServer());
node.protect(node.createGate({ config }), (request, response) => response.end(request.url)).attach(createServer());
