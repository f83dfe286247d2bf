// A flood of valid tokens that are never seen again, among which some people go on working: what the gate's memory does, and
// how often these people's tokens need a signature check.
//
// The tokens are signed with ES256, a tenth of the work of RS256, a batch at a time while Envoy waits. Nothing is timed.

import assert from "node:assert/strict";
import net from "node:net";

import { residentMemory, vmMemories } from "../tests/e2e/support/memory.mjs";
import { PROTECTED, browserHeaders, gate, gateConfig } from "./arrangements.mjs";
import { launchEnvoy } from "./envoy.mjs";
import { mintMany } from "./tokens.mjs";

const IN_USE = 200;
const BATCH = 20_000;
const CONNECTIONS = 16;
const SIGNATURES = /^wasmcustom\.stepgate_signatures\./;

/**
 * @param {number} total  tokens that come once
 * @param {number[]} shapes  how many of them come for each request of those in use; each has its part of the flood
 */
export async function measureFlood(total, shapes, tell) {
  const envoy = await launchEnvoy({ gate: [gate("flood", gateConfig({ alg: "ES256" }))] });
  try {
    await envoy.ready();
    const results = [];
    for (const strangers of shapes) {
      results.push(await flood(envoy, Math.floor(total / shapes.length), strangers, tell));
    }
    return results;
  } finally {
    await envoy.stop();
  }
}

async function flood(envoy, total, strangers, tell) {
  const inUse = await mintMany("ES256", IN_USE);
  await send(envoy, inUse);
  const result = { strangers, total, inUse: 0, checked: 0, linear: [], resident: [] };
  for (let sent = 0; sent < total; sent += BATCH) {
    const once = await mintMany("ES256", Math.min(BATCH, total - sent));
    const tokens = once.flatMap((token, at) => (at % strangers === 0 ? [inUse[Math.floor(Math.random() * IN_USE)], token] : [token]));
    const before = await signatures(envoy);
    await send(envoy, tokens);
    result.inUse += tokens.length - once.length;
    // Those that come once take one check each.
    result.checked += (await signatures(envoy)) - before - once.length;
    result.linear.push(Math.max(...(await vmMemories(envoy.pid)).values()));
    result.resident.push(await residentMemory(envoy.pid));
    tell(`flood, ${strangers} : 1, ${sent + once.length} of ${total}`);
  }
  return result;
}

async function signatures(envoy) {
  return (await envoy.counters({ signatures: SIGNATURES })).signatures;
}

/** Sends a request for each token, in order, spread over some connections. */
async function send(envoy, tokens) {
  const [before, after] = Object.entries(browserHeaders("{token}"))
    .reduce((head, [name, value]) => `${head}${name}: ${value}\r\n`, `GET ${PROTECTED} HTTP/1.1\r\n`)
    .split("{token}");
  let next = 0;
  await Promise.all(Array.from({ length: CONNECTIONS }, () => new Promise((resolve, reject) => {
    const socket = net.connect({ host: "127.0.0.1", port: envoy.port("gate"), noDelay: true });
    let answer = "";
    const ask = () => {
      if (next === tokens.length) return socket.end(resolve);
      socket.write(`${before}${tokens[next]}${after}\r\n`);
      next += 1;
    };
    socket.setEncoding("latin1").once("connect", ask).once("error", reject).on("data", (text) => {
      answer += text;
      if (!answer.includes("\r\n\r\n")) return;
      assert.match(answer, /^HTTP\/1\.1 200 /, "every token is valid");
      if (!answer.endsWith("\r\n\r\nok")) return;
      answer = "";
      ask();
    });
  })));
}
