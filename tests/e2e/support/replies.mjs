// An identity provider that answers as a decision case says: `replies` by endpoint, in order; the last one stays.

import http from "node:http";

import { METADATA } from "./provider.mjs";
import { eventually } from "./wait.mjs";

/** What the background fetches. */
export const DOCUMENTS = ["metadata", "keys"];

/** By path; any other is that of the keys. */
const ENDPOINTS = { [METADATA]: "metadata", "/token": "token", "/par": "pushed_authorization" };

/** Starts it on a port that the kernel picks. */
export async function startReplies(replies) {
  const stub = new Replies(replies);
  await stub.listen();
  return stub;
}

class Replies {
  #server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => this.#answer(request, response));
  #replies;
  #requests = { metadata: 0, keys: 0, token: 0, pushed_authorization: 0 };

  /** What was posted: `{ endpoint, form, authorization }`. */
  posts = [];

  constructor(replies) {
    this.#replies = replies;
  }

  async listen() {
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.port = this.#server.address().port;
  }

  /** Waits until every document that there are replies for was asked for. */
  async asked(milliseconds = 10_000) {
    const documents = DOCUMENTS.filter((document) => document in this.#replies);
    await eventually(milliseconds, `a request for each of: ${documents.join(", ")}`, () =>
      documents.every((document) => this.#requests[document] > 0),
    );
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request, response) {
    response.on("error", () => {});
    const endpoint = ENDPOINTS[request.url] ?? "keys";
    let form = "";
    for await (const chunk of request.setEncoding("utf8")) form += chunk;
    if (request.method === "POST") this.posts.push({ endpoint, form, authorization: request.headers.authorization });
    const list = this.#replies[endpoint] ?? [{ status: 404 }];
    const { failure, status = 200, json, text = "" } = list[Math.min(this.#requests[endpoint], list.length - 1)];
    this.#requests[endpoint] += 1;
    if (failure === "timeout") return;
    if (failure === "reset") {
      request.socket.resetAndDestroy();
      return;
    }
    response.writeHead(status, { "content-type": "application/json" });
    response.end(json === undefined ? text : JSON.stringify(json));
  }
}
