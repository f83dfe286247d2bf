import { createGate } from "../../../dist/edge/native.js";
import { answer } from "../../../dist/edge/web.js";
import { casesHandler, startCases } from "./cases.js";

const handle = casesHandler(startCases(JSON.parse(Deno.readTextFileSync(Deno.args[0])), { createGate, answer }));
const { addr } = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => handle(request));
console.log(`port ${addr.port}`);
