// An identity provider that misbehaves on request. It serves the metadata and the keys, answers token requests and pushed
// authorization requests, and counts the requests for each; a test says per path how it answers:
//
//   const provider = await startProvider({ keys: [jwk] });
//   provider.answers(KEYS, status(500));
//   const held = provider.holds(KEYS);   // answers arrive only after held.release()
//   await provider.requested(KEYS, 2);   // the second request has arrived
//
// The behaviours below are plain functions of the request, the response and the document's text.

import http from "node:http";
import { text } from "node:stream/consumers";
import { gzipSync } from "node:zlib";

import { secret, sentSecrets } from "./secrets.mjs";
import { deferred, eventually } from "./wait.mjs";

export const METADATA = "/.well-known/openid-configuration";
export const KEYS = "/jwks";
export const TOKEN = "/token";
export const PUSHED = "/par";

const ENDLESS_PIECE = Buffer.alloc(16 * 1024, " ");

/** Starts a provider on a port that the kernel picks. */
export async function startProvider({ keys = [] } = {}) {
  const provider = new Provider(keys);
  await provider.up();
  return provider;
}

class Provider {
  #server;
  #behaviours = new Map();
  #counts = new Map();

  /** Members of the metadata document to replace. */
  metadata = {};

  /** The ID Token for each code. */
  grants = new Grants();

  /** What was posted: `{ path, form, authorization }`. */
  posts = [];

  constructor(keys) {
    this.keys = keys;
  }

  get issuer() {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** From now on, requests for this path are answered so. */
  answers(path, behaviour) {
    this.#behaviours.set(path, behaviour);
  }

  /** From now on, requests for this path are answered as `behaviour` says, but only after `release()`. */
  holds(path, behaviour = normal) {
    const held = deferred();
    this.answers(path, async (...exchange) => {
      await held.promise;
      return behaviour(...exchange);
    });
    return {
      release: () => {
        this.answers(path, behaviour);
        held.resolve();
      },
    };
  }

  /** How many requests for this path have arrived. */
  count(path) {
    return this.#counts.get(path) ?? 0;
  }

  /** Waits until so many requests for this path have arrived. */
  async requested(path, count, milliseconds = 10_000) {
    return eventually(milliseconds, `the provider has ${count} requests for ${path}`, () => this.count(path) >= count);
  }

  /** Refuses connections. */
  async down() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Accepts connections (again, on the same port). */
  async up() {
    this.#server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => this.#answer(request, response));
    await new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(this.port ?? 0, "127.0.0.1", resolve);
    });
    this.port = this.#server.address().port;
  }

  async stop() {
    if (this.#server.listening) await this.down();
  }

  async #answer(request, response) {
    response.on("error", () => {});
    const path = request.url;
    this.#counts.set(path, this.count(path) + 1);
    const form = Object.fromEntries(new URLSearchParams(await text(request)));
    sentSecrets(form, request.headers.authorization);
    if (request.method === "POST") this.posts.push({ path, form, authorization: request.headers.authorization });
    const behaviour = this.#behaviours.get(path) ?? normal;
    await behaviour(response, this.#document(path, form));
  }

  #document(path, { code }) {
    if (path === KEYS) return JSON.stringify({ keys: this.keys });
    if (path === PUSHED) return JSON.stringify({ request_uri: "urn:example:pushed", expires_in: 60 });
    if (path === TOKEN && this.grants.has(code)) {
      return JSON.stringify({ access_token: "opaque", token_type: "Bearer", expires_in: 60, id_token: this.grants.get(code) });
    }
    if (path !== METADATA) return undefined;
    return JSON.stringify({
      issuer: this.issuer,
      authorization_endpoint: `${this.issuer}authorize`,
      token_endpoint: `${this.issuer}token`,
      jwks_uri: `${this.issuer}jwks`,
      response_types_supported: ["code"],
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: ["RS256"],
      ...this.metadata,
    });
  }
}

class Grants extends Map {
  set(code, token) {
    return super.set(secret("code", code), token);
  }
}

/** The document, as it should be. */
export function normal(response, document) {
  if (document === undefined) return status(404)(response);
  response.writeHead(200, { "content-type": "application/json" }).end(document);
}

/** A status and no document. */
export function status(code, headers = {}) {
  return (response) => response.writeHead(code, { "content-type": "text/plain", ...headers }).end(`status ${code}`);
}

/** Another document. */
export function document(text, headers = {}) {
  return (response) => response.writeHead(200, { "content-type": "application/json", ...headers }).end(text);
}

/** No answer, ever. */
export function silent() {}

/** A status of 200 and nothing else. */
export function empty(response) {
  response.writeHead(200, { "content-type": "application/json", "content-length": "0" }).end();
}

/** The document with other members; `undefined` removes one. */
export function changed(members) {
  return (response, text) => document(JSON.stringify({ ...JSON.parse(text), ...members }))(response);
}

/** An OAuth error (RFC 6749 section 5.2). */
export function oauthError(code, error) {
  return (response) => response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify({ error }));
}

/** The document, one byte each so many ms. */
export function trickle(milliseconds) {
  return async (response, text) => {
    response.writeHead(200, { "content-type": "application/json" });
    for (const byte of text) {
      if (response.destroyed) return;
      response.write(byte);
      await new Promise((resolve) => setTimeout(resolve, milliseconds));
    }
    response.end();
  };
}

/** A body that goes on until the other side gives up: as fast as it is read, or one piece each so many ms. */
export function endless(milliseconds = 0) {
  return async (response) => {
    response.writeHead(200, { "content-type": "application/json" });
    const closed = new Promise((resolve) => response.once("close", resolve));
    while (!response.destroyed) {
      const flows = response.write(ENDLESS_PIECE);
      if (!flows) await Promise.race([closed, new Promise((resolve) => response.once("drain", resolve))]);
      await new Promise((resolve) => setTimeout(resolve, milliseconds));
    }
  };
}

/** The right document with so many bytes of white space behind it. */
export function huge(length) {
  return (response, text) => document(text + " ".repeat(length))(response);
}

/** The first half of the document, as if it were all of it. */
export function truncated(response, text) {
  document(text.slice(0, text.length / 2))(response);
}

/** A page for people. */
export function html(response) {
  document("<!doctype html><title>Sign in</title><p>Please sign in.", { "content-type": "text/html" })(response);
}

/** The connection is reset in the middle of the document. */
export function reset(response, text) {
  response.writeHead(200, { "content-type": "application/json", "content-length": String(text.length) });
  response.write(text.slice(0, text.length / 2), () => response.socket?.resetAndDestroy());
}

/** The connection is reset before any answer. */
export function resetAtOnce(response) {
  response.socket.resetAndDestroy();
}

/** Another place to look at. */
export function redirect(location) {
  return status(302, { location });
}

/** The document, compressed although nobody asked for it. */
export function gzip(response, text) {
  response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" }).end(gzipSync(text));
}

/** Bytes that are not text. */
export function binary(response) {
  response.writeHead(200, { "content-type": "application/json" }).end(Buffer.from([0xff, 0xfe, 0x00, 0x80]));
}
