// A gate in front of a server of Node's http, and a proxy to an app elsewhere.

import { ServerResponse, request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { pipeline } from "node:stream";

import { joined } from "./call.js";
import { UNAVAILABLE } from "./gate.js";
import { Guard } from "./guard.js";

export { ConfigurationError, createGate } from "./native.js";

/** Fields that are between two neighbours (RFC 9110 section 7.6.1); a proxy has its own. */
const HOP_BY_HOP = ["connection", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/**
 * Listeners for a server, with a gate in front of an app. A gate whose configuration is refused answers 503 to everything.
 *
 * @param gate  a gate, or a promise of one
 * @param app   a listener for requests, or `{ request, upgrade }`
 */
export function protect(gate, app) {
  const guard = new Guard(gate);
  const { request: onRequest, upgrade: onUpgrade } = typeof app === "function" ? { request: app } : app;

  async function request(message, response) {
    const decision = await decide(guard, message, response);
    if (!decision) return;
    if (decision.step !== "forward") return write(response, decision);
    edit(message, decision);
    complete(response, decision.response);
    onRequest(message, response);
  }

  async function upgrade(message, socket, head) {
    if (!isWebSocket(message)) return refuse(message, socket, NOT_UPGRADED);
    const decision = await decide(guard, message, socket);
    if (!decision) return;
    if (decision.step !== "forward") return refuse(message, socket, decision);
    edit(message, decision);
    onUpgrade(message, socket, head, decision.response);
  }

  return {
    request,
    ...(onUpgrade && { upgrade }),
    /** Listens to a server's events. */
    attach(server) {
      server.on("request", request);
      if (onUpgrade) server.on("upgrade", upgrade);
      return server;
    },
  };
}

/** What follows an upgrade is not judged: it must not be HTTP again (h2c), nor may a body be taken for it. */
function isWebSocket({ method, headers }) {
  const { upgrade, "transfer-encoding": coding, "content-length": length = "0" } = headers;
  return method === "GET" && /^\s*websocket\s*$/i.test(upgrade) && coding === undefined && length === "0";
}

const NOT_UPGRADED = Object.freeze({
  status: 400, fields: [["content-type", "text/plain; charset=utf-8"], ["cache-control", "no-store"]],
  body: "Only a WebSocket begins here.\n",
});

/** An app at another origin. Everything streams, both ways. */
export function proxy(origin) {
  const { protocol, hostname, port } = new URL(origin);
  const send = protocol === "https:" ? httpsRequest : httpRequest;
  const call = ({ method, url, rawHeaders }, more = [], options = {}) =>
    send({ hostname, port, method, path: url, setHost: false, headers: [...withoutHopByHop(rawHeaders), ...more], ...options });

  return {
    request(message, response) {
      const { "transfer-encoding": coding, "content-length": length } = message.headers;
      const call_ = call(message, coding === undefined ? [] : ["transfer-encoding", "chunked"]);
      call_.on("response", (answer) => {
        response.writeHead(answer.statusCode, answer.statusMessage, withoutHopByHop(answer.rawHeaders));
        pipeline(answer, response, () => {});
      });
      call_.on("error", () => unreachable(response));
      response.on("close", () => call_.destroy());
      if (coding === undefined && length === undefined) call_.end();
      else pipeline(message, call_, () => {});
    },

    upgrade(message, socket, head, fields = []) {
      // On a connection of its own, which is never used again.
      const call_ = call(message, ["connection", "upgrade", "upgrade", message.headers.upgrade], { agent: false });
      call_.on("upgrade", (answer, upstream, first) => {
        const lines = pairs([...answer.rawHeaders, ...fields.flat()]).map(([name, value]) => `${name}: ${value}\r\n`);
        socket.write(`HTTP/1.1 101 ${answer.statusMessage}\r\n${lines.join("")}\r\n`, "latin1");
        socket.write(first);
        upstream.write(head);
        pipeline(socket, upstream, () => {});
        pipeline(upstream, socket, () => {});
      });
      call_.on("response", (answer) => {
        const response = responseOn(message, socket);
        response.writeHead(answer.statusCode, answer.statusMessage, [...withoutHopByHop(answer.rawHeaders), ...fields.flat()]);
        pipeline(answer, response, () => {});
      });
      call_.on("error", () => unreachable(responseOn(message, socket)));
      socket.on("error", () => call_.destroy());
      socket.on("close", () => call_.destroy());
      call_.end();
    },
  };
}

/** The decision on a message; nothing where its client has gone. */
async function decide(guard, message, connection) {
  const gone = new AbortController();
  const leave = () => gone.abort();
  connection.once("close", leave);
  try {
    const gate = guard.gate ?? await guard.ready();
    if (!gate) return UNAVAILABLE;
    const decision = await gate.decide(new NodeRequest(message, gate.header, gone.signal));
    return gone.signal.aborted ? undefined : decision;
  } catch (error) {
    if (!gone.signal.aborted) throw error;
    return undefined;
  } finally {
    connection.off("close", leave);
  }
}

/** An `IncomingMessage`, as the core is to see it. */
class NodeRequest {
  constructor(message, header, signal) {
    this.message = message;
    this.method = message.method;
    this.signal = signal;
    this.authority = "";
    this.cookies = "";
    this.values = undefined;
    const { rawHeaders } = message;
    let hosts = 0;
    for (let at = 0; at < rawHeaders.length; at += 2) {
      const name = rawHeaders[at].toLowerCase();
      const value = rawHeaders[at + 1];
      if (name === "host") {
        hosts += 1;
        this.authority = value;
      }
      if (name === "cookie") this.cookies += this.cookies === "" ? value : `; ${value}`;
      if (name === header) this.values = this.values === undefined ? value : `${this.values}\0${value}`;
    }
    // An asterisk is a target of its own (RFC 9112 section 3.2.4). With more behind it, routers take it for a slash.
    this.path = /^\*./s.test(message.url) ? "" : message.url;
    // Two hosts, or one in the target (RFC 9112 section 3.2.2): it could be for any.
    if (hosts > 1 || !/^[/*]/.test(message.url)) this.authority = "";
  }

  fields() {
    return this.message.rawHeaders.map((text) => `${text}\0`).join("");
  }

  async body(maxBytes) {
    const chunks = [];
    let length = 0;
    for await (const chunk of this.message) {
      length += chunk.length;
      if (length > maxBytes) return undefined;
      chunks.push(chunk);
    }
    return joined(chunks, length);
  }
}

/** Changes a message as a decision says. Its trailers do not reach the app: identity fields could come in them. */
function edit(message, { removed, added }) {
  const trailers = { rawTrailers: [], trailers: {}, trailersDistinct: {} };
  // Node's parser sets them when they come.
  for (const [name, value] of Object.entries(trailers)) Object.defineProperty(message, name, { get: () => value, set() {} });
  if (removed.length === 0 && added.length === 0) return;
  const { headers, headersDistinct } = message;
  const out = new Set(removed.map((name) => name.toLowerCase()));
  const kept = pairs(message.rawHeaders).filter(([name]) => !out.has(name.toLowerCase()));
  for (const name of out) {
    delete headers[name];
    delete headersDistinct[name];
  }
  for (const [name, value] of added) {
    headers[name] = Object.hasOwn(headers, name) ? `${headers[name]}, ${value}` : value;
    headersDistinct[name] = [...headersDistinct[name] ?? [], value];
  }
  message.rawHeaders = [...kept, ...added].flat();
}

/** Adds fields to whatever the app answers. */
function complete(response, fields) {
  if (fields.length === 0) return;
  const { writeHead } = response;
  response.writeHead = function (status, ...more) {
    const headers = more.pop();
    if (typeof headers === "string") more.push(headers);
    else if (headers) set(this, headers);
    for (const [name, value] of fields) this.appendHeader(name, value);
    response.writeHead = writeHead;
    return writeHead.call(this, status, ...more);
  };
}

/** The fields that are given to `writeHead`, in any of its forms. */
function set(response, headers) {
  const list = Array.isArray(headers) ? headers : Object.entries(headers);
  const known = new Set();
  for (const [name, value] of Array.isArray(list[0]) ? list : pairs(list)) {
    const key = name.toLowerCase();
    if (known.has(key)) response.appendHeader(name, value);
    else response.setHeader(name, value);
    known.add(key);
  }
}

function write(response, { status, fields, body }) {
  const length = body === "" && status < 400 ? [] : ["content-length", String(Buffer.byteLength(body))];
  response.writeHead(status, [...fields.flat(), ...length]);
  response.end(body);
}

function refuse(message, socket, decision) {
  write(responseOn(message, socket), decision);
}

/** A response on the connection of a request that asked for another protocol. */
function responseOn(message, socket) {
  const response = new ServerResponse(message);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.on("finish", () => socket.end());
  return response;
}

function unreachable(response) {
  if (response.headersSent) return response.destroy();
  response.writeHead(502, { "content-type": "text/plain", "cache-control": "no-store" });
  response.end("The app does not answer.\n");
}

function withoutHopByHop(rawHeaders) {
  return pairs(rawHeaders).filter(([name]) => !HOP_BY_HOP.includes(name.toLowerCase())).flat();
}

/** Names and values that take turns. A name without a value gets none, which Node refuses. */
function pairs(list) {
  return Array.from({ length: Math.ceil(list.length / 2) }, (_, at) => [list[2 * at], list[2 * at + 1]]);
}
