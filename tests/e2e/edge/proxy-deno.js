// A proxy in Deno, behind the gate: to an app elsewhere (APP), with pages of its own for what Deno's fetch cannot pass on.

import { gzipSync } from "node:zlib";

import { createGate, protect } from "../../../dist/edge/deno.js";

const env = Deno.env.toObject();
const gate = createGate({ config: env.CONFIG, env });

const pages = {
  "/salary/gzip": () => new Response(gzipSync("compressed"), { headers: { "content-encoding": "gzip" } }),
  "/salary/socket": (_, sent) => {
    const { socket, response } = Deno.upgradeWebSocket(sent);
    socket.onmessage = ({ data }) => socket.send(`echo: ${data}`);
    return response;
  },
};

const { addr } = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, protect(gate, (request, _, sent) => {
  const { pathname, search } = new URL(request.url);
  return pages[pathname]?.(request, sent) ?? fetch(`${env.APP}${pathname}${search}`, request);
}));
console.log(`port ${addr.port}`);
