// The app behind the gate: it records every request that reaches it and answers with what it saw.

import { createHash } from "node:crypto";
import http from "node:http";

import { eventually } from "./wait.mjs";

/** RFC 6455 section 1.3. */
const WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Starts the app on a port that the kernel picks. */
export async function startUpstream() {
  const upstream = new Upstream();
  await upstream.listen();
  return upstream;
}

/** The SHA-256 digest of a body, as the app tells it. */
export function digest(body) {
  return createHash("sha256").update(body).digest("hex");
}

class Upstream {
  #server;

  /**
   * Every request, from the moment its headers arrive:
   * `{ method, path, headers, trailers, length, digest, complete }`. A header is `[name, value]`, as it came.
   */
  requests = [];

  constructor() {
    // A connection that the app closes just as Envoy uses it again is a 503: it never does.
    const options = { maxHeaderSize: 16 * 1024 * 1024, requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 };
    this.#server = http.createServer(options, (request, response) => this.#answer(request, response));
    this.#server.maxHeadersCount = 0;
    this.#server.on("upgrade", (request, socket) => this.#upgrade(request, socket));
  }

  async listen() {
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.port = this.#server.address().port;
  }

  /** How many requests have reached the app so far. */
  get count() {
    return this.requests.length;
  }

  /** The requests with this path. */
  at(path) {
    return this.requests.filter((request) => request.path === path);
  }

  /** The first request with this path, once the app has it whole. */
  async received(path, milliseconds = 10_000) {
    return eventually(milliseconds, `the app receives ${path}`, () => this.at(path).find((seen) => seen.complete));
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request, response) {
    const seen = this.#record(request);
    const hash = createHash("sha256");
    try {
      for await (const chunk of request) {
        seen.length += chunk.length;
        hash.update(chunk);
      }
    } catch {
      return; // the client has gone: the record stays incomplete
    }
    Object.assign(seen, { digest: hash.digest("hex"), trailers: request.trailers, complete: true });
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ app: true, method: seen.method, path: seen.path, length: seen.length }));
  }

  #upgrade(request, socket) {
    this.#record(request).complete = true;
    socket.on("error", () => {});
    const key = request.headers["sec-websocket-key"];
    const accept = key === undefined ? "" : `sec-websocket-accept: ${createHash("sha1").update(key + WEBSOCKET).digest("base64")}\r\n`;
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n${accept}\r\n`);
    socket.pipe(socket);
  }

  #record({ method, url, rawHeaders }) {
    const headers = [];
    for (let at = 0; at < rawHeaders.length; at += 2) {
      headers.push([rawHeaders[at].toLowerCase(), rawHeaders[at + 1]]);
    }
    const seen = { method, path: url, headers, trailers: {}, length: 0, digest: undefined, complete: false };
    this.requests.push(seen);
    return seen;
  }
}
