// The package in each edge runtime in front of all origins, with the gate and without it.

import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { createGate, protect, proxy } from "../../../dist/edge/node.js";
import { startDeno, startWorkerd } from "../support/edge.mjs";
import { inlineGate } from "../support/gate.mjs";
import { connect } from "../support/http.mjs";
import { ORIGINS, SECRET } from "./origins.mjs";
import { RULES, sample } from "./range.mjs";

/** A proxy as it is written for workerd: the origins are bound to it. A field tells which one, and whether there is a gate. */
const WORKER = `
import { createGate } from "./stepgate/workerd.js";
import plan from "./plan.json";

const gates = {};
const gateOf = (origin) => (gates[plan.gates[origin]] ??= createGate({ config: plan.configs[plan.gates[origin]] }));

export default {
  async fetch(request, env, context) {
    const forward = (passed) => env[origin].fetch(passed);
    const [origin, isOpen] = request.headers.get("x-origin").split(" ");
    return isOpen ? forward(request) : (await gateOf(origin)).handle(request, forward, context);
  },
};`;

/** As it is written for Deno: a URL parser reads the target. */
const DENO = `
import { createGate } from "${new URL("../../../dist/edge/deno.js", import.meta.url).href}";

const plan = JSON.parse(Deno.readTextFileSync(Deno.args[0]));
const gates = {};
const gateOf = (origin) => (gates[plan.gates[origin]] ??= createGate({ config: plan.configs[plan.gates[origin]] }));

const { addr } = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
  const [origin, isOpen] = request.headers.get("x-origin").split(" ");
  const forward = ({ url, method, headers, body }) => {
    const target = new URL(url);
    target.host = "127.0.0.1:" + plan.ports[origin];
    return fetch(target, { method, headers, body, redirect: "manual" });
  };
  return isOpen ? forward(request) : (await gateOf(origin)).handle(request, forward);
});
console.log("port " + addr.port);`;

/** Starts the runtimes in front of origins that are there already. */
export async function startEdgeRange(origins) {
  const relays = {};
  for (const origin of Object.keys(ORIGINS)) relays[origin] = await startRelay(origins.socket(origin));
  const ports = Object.fromEntries(Object.entries(relays).map(([origin, { port }]) => [origin, port]));
  const plan = {
    ports,
    gates: Object.fromEntries(Object.entries(ORIGINS).map(([origin, { ignoresCase }]) => [origin, ignoresCase ? "folding" : "plain"])),
    configs: { plain: inlineGate({ rules: RULES }), folding: inlineGate({ rules: RULES, case_insensitive_paths: true }) },
  };
  const runtimes = {
    workerd: await startWorkerd({ modules: { "worker.js": WORKER, "plan.json": plan }, services: ports }),
    Deno: await startInDeno(plan),
    Node: await startInNode(plan),
  };
  const stop = async () => {
    for (const { stop } of [...Object.values(runtimes), ...Object.values(relays)]) await stop();
  };
  return new EdgeRange(runtimes, stop);
}

class EdgeRange {
  #runtimes;
  #idle = new Map();
  #stop;

  constructor(runtimes, stop) {
    this.#runtimes = runtimes;
    this.#stop = stop;
  }

  /** The names of the runtimes. */
  get ways() {
    return Object.keys(this.#runtimes);
  }

  /** Sends a request on its way, over HTTP/1.1, and tells whether the secret comes back. */
  async reveals({ way, origin, gated }, { method = "GET", path, headers = {} }) {
    const request = {
      method, path, headers: [["x-origin", gated ? origin : `${origin} open`], ...Object.entries(headers).filter(([name]) => !name.startsWith(":"))],
    };
    const idle = this.#idle.get(way)?.pop();
    // A runtime may have closed the connection after the request before.
    const answer = (idle && await this.#ask(idle, way, request)) ?? await this.#ask(
      await connect(this.#runtimes[way].port), way, request,
    );
    return answer !== undefined && (answer.text() + JSON.stringify(answer.headers)).includes(SECRET);
  }

  async sample(seed, count) {
    return sample(seed, count, this.ways, (shot, target) => this.reveals(shot, target));
  }

  async stop() {
    for (const connection of [...this.#idle.values()].flat()) connection.close();
    await this.#stop();
  }

  /** The answer; undefined when the connection ends instead. */
  async #ask(connection, way, request) {
    try {
      const answer = await connection.request(request);
      if (answer.status >= 400 || request.method === "CONNECT") connection.close();
      else this.#idle.set(way, [...(this.#idle.get(way) ?? []), connection]);
      return answer;
    } catch {
      connection.close();
      return undefined;
    }
  }
}

async function startInDeno(plan) {
  const directory = mkdtempSync(path.join(tmpdir(), "stepgate-deno-"));
  const files = { "proxy.js": DENO, "plan.json": JSON.stringify(plan) };
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(directory, name), text);
  const [program, file] = Object.keys(files).map((name) => path.join(directory, name));
  return startDeno(program, { args: [file], cleanUp: () => rmSync(directory, { recursive: true }) });
}

async function startInNode({ ports, gates, configs }) {
  const made = {};
  for (const [name, config] of Object.entries(configs)) made[name] = await createGate({ config });
  const server = createServer();
  const handle = (event) => (message, ...more) => {
    const [origin, isOpen] = (message.headers["x-origin"] ?? "").split(" ");
    const app = proxy(`http://127.0.0.1:${ports[origin]}`);
    (isOpen ? app : protect(made[gates[origin]], app))[event](message, ...more);
  };
  server.on("request", handle("request")).on("upgrade", handle("upgrade"));
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    port: server.address().port,
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
      Object.values(made).forEach((gate) => gate.close());
    },
  };
}

/** A port at which a socket of the file system can be reached, byte by byte. */
async function startRelay(socket) {
  const ends = new Set();
  const server = net.createServer({ allowHalfOpen: true }, (near) => {
    const far = net.connect({ path: socket, allowHalfOpen: true });
    for (const [from, to] of [[near, far], [far, near]]) {
      ends.add(from);
      from.on("error", () => to.destroy()).on("close", () => { ends.delete(from); to.destroy(); }).pipe(to);
    }
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    port: server.address().port,
    async stop() {
      server.close();
      ends.forEach((end) => end.destroy());
      await once(server, "close");
    },
  };
}
