// Requests and responses of the Fetch API.

import { read } from "./call.js";

/** Responses with these have no body (Fetch section 2.2.3). */
const WITHOUT_BODY = [101, 204, 205, 304];

/** A host, and a port or none, that every parser reads in the same way. */
const PLAIN_HOST = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d*)?$/;

/** What Deno has in a URL where no host was named. */
const OWN_ADDRESS = /^(?:localhost|[0-9.]+|\[.*\])(?::\d*)?$/i;

/** A `Request`, as the core is to see it. */
export class WebRequest {
  #fields;

  constructor(request, gate) {
    const { url, method, headers } = request;
    const { header } = gate;
    this.request = request;
    this.method = method;
    this.#fields = headers;
    this.values = header === undefined ? undefined : headers.get(header) ?? undefined;
    this.cookies = headers.get("cookie") ?? "";
    // What the app gets is this URL, so this URL is judged: as it was sent, since a parser would read it in its own way.
    const afterScheme = url.slice(url.indexOf("://") + 3);
    const [host] = /^[^/?#*\\]*/.exec(afterScheme);
    const target = afterScheme.slice(host.length);
    // A host that parsers may read in several ways could be any, and so could that of a URL and a field which name two
    // (RFC 9112 section 3.2.2).
    // HTTP/2 has no such field.
    const named = headers.get("host") ?? (OWN_ADDRESS.test(host) ? "" : host);
    this.authority = PLAIN_HOST.test(host) && named.toLowerCase() === host.toLowerCase() ? named : "";
    // Where it cannot be known what is host and what is path, there is none, which falls under every rule.
    const isUnclear = /[/?#\\]/.test(named) || /^(?:\\|\*.)/s.test(target) || method === "CONNECT";
    this.path = isUnclear ? "" : asSent(target, gate);
  }

  get signal() {
    return this.request.signal;
  }

  fields() {
    let text = "";
    for (const [name, value] of this.#fields) text += `${name}\0${value}\0`;
    return text;
  }

  async body(maxBytes) {
    return read(this.request.body, maxBytes);
  }
}

/**
 * Handles a request of the Fetch API by a gate: `forward` is called only for what is let through.
 *
 * @param {import("./gate.js").Gate} gate
 */
export async function handle(gate, request, forward, context) {
  const asked = new WebRequest(request, gate);
  const pending = gate.decide(asked, context);
  const decision = pending instanceof Promise ? await pending : pending;
  if (decision.step !== "forward") return answer(request, decision);
  const response = await forward(edited(request, decision));
  return decision.response.length === 0 ? response : completed(response, decision.response);
}

/** The gate's own answer. */
export function answer({ method }, { status, fields, body }) {
  const headers = new Headers();
  for (const [name, value] of fields) headers.append(name, value);
  return new Response(method === "HEAD" || body === "" ? null : body, { status, headers });
}

function edited(request, { removed, added }) {
  if (removed.length === 0 && added.length === 0) return request;
  const headers = new Headers(request.headers);
  for (const name of removed) headers.delete(name);
  for (const [name, value] of added) headers.append(name, value);
  return new Request(request, { headers });
}

function completed(response, fields) {
  const { status, webSocket } = response;
  // An upgrade of the runtime's own is no response that could be made anew.
  if (status === 101 && !webSocket) return response;
  const whole = new Response(WITHOUT_BODY.includes(status) ? null : response.body, webSocket ? { status, webSocket, headers: response.headers } : response);
  for (const [name, value] of fields) whole.headers.append(name, value);
  return whole;
}

/** A target's bytes. Runtimes take those of a target for UTF-8, also where they take those of fields one by one. */
function asSent(target, { asUtf8 }) {
  if (asUtf8 || /^[\0-\x7f]*$/.test(target)) return target;
  return Array.from(new TextEncoder().encode(target), (byte) => String.fromCharCode(byte)).join("");
}
