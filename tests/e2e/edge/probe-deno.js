import { createGate } from "../../../dist/edge/native.js";
import { startProbe } from "./probe.js";

const probe = startProbe(createGate, JSON.parse(Deno.env.get("CONFIG")));
const { addr } = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => probe.handle(request));
console.log(`port ${addr.port}`);
