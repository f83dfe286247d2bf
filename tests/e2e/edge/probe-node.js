import { createServer } from "node:http";

import { createGate, protect } from "../../../dist/edge/node.js";
import { startProbe } from "./probe.js";

const probe = startProbe(createGate, JSON.parse(process.env.CONFIG));
const { request } = protect(probe.gate(), ({ rawHeaders }, response) => {
  const fields = rawHeaders.flatMap((name, at) => (at % 2 ? [] : [[name.toLowerCase(), rawHeaders[at + 1]]]));
  response.end(JSON.stringify(fields));
});
const server = createServer(async (message, response) => {
  if (message.headers["x-told"] === undefined) return request(message, response);
  return response.end(JSON.stringify(await probe.told()));
});
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
