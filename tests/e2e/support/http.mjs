// HTTP clients that send exactly what a test says: HTTP/1.1 over a bare socket (any bytes, any header twice, one
// connection that stays on its worker), and HTTP/2.

import http2 from "node:http2";
import net from "node:net";

import { secret } from "./secrets.mjs";
import { deferred } from "./wait.mjs";

const ANSWERED_WITHIN = 15_000;

/** One request on a connection of its own. Options: see `Connection.request`. */
export async function request(port, options) {
  const connection = await connect(port);
  try {
    return await connection.request(options);
  } finally {
    connection.close();
  }
}

/** A connection to a port on loopback. */
export async function connect(port) {
  const socket = net.connect({ host: "127.0.0.1", port, noDelay: true });
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return new Connection(socket);
}

/** An HTTP/1.1 connection: one request after the other, all served by the same worker of Envoy. */
export class Connection {
  #socket;
  #received = Buffer.alloc(0);
  #ended = false;
  #changed = deferred();

  constructor(socket) {
    this.#socket = socket;
    socket.on("data", (bytes) => this.#change(() => (this.#received = Buffer.concat([this.#received, bytes]))));
    socket.on("error", () => {});
    socket.on("close", () => this.#change(() => (this.#ended = true)));
  }

  /**
   * Sends a request and gives its answer.
   *
   * @param {object} [options]
   * @param {string} [options.method]
   * @param {string | Buffer} [options.path]   the request target, sent as it is (strings as Latin-1)
   * @param {string} [options.host]
   * @param {[string | Buffer, string | Buffer][]} [options.headers]  sent in order, as they are
   * @param {string | Buffer} [options.body]   sent with a Content-Length
   * @param {(string | Buffer)[]} [options.chunks]  sent with Transfer-Encoding: chunked
   * @param {[string, string][]} [options.trailers]  after the chunks
   * @returns {Promise<Answer>}
   */
  async request(options = {}) {
    this.write(encode(options));
    return this.answer(options.method);
  }

  /** Sends bytes. */
  write(bytes) {
    this.#socket.write(bytes);
  }

  /** The next answer on this connection (those of 1xx are skipped, but not 101). */
  async answer(method = "GET", milliseconds = ANSWERED_WITHIN) {
    const timer = setTimeout(() => this.#socket.destroy(), milliseconds);
    try {
      for (;;) {
        const answer = await this.#next(method);
        if (answer.status === 101 || answer.status >= 200) return answer;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** True while neither side has closed. */
  get open() {
    return !this.#ended && !this.#socket.destroyed;
  }

  /** Ends the connection at once, with a TCP reset. */
  reset() {
    this.#socket.resetAndDestroy();
  }

  close() {
    this.#socket.destroy();
  }

  async #next(method) {
    const head = (await this.#upTo("\r\n\r\n")).toString("latin1").split("\r\n");
    const status = Number(head[0].split(" ")[1]);
    const answer = new Answer(status, head.slice(1).filter(Boolean).map(field));
    if (method !== "HEAD" && status >= 200 && status !== 204 && status !== 304) {
      answer.body = await this.#body(answer);
    }
    return answer;
  }

  async #body(answer) {
    if (answer.header("transfer-encoding") === "chunked") return this.#chunks();
    const length = answer.header("content-length");
    if (length !== undefined) return this.#take(Number(length));
    while (!this.#ended) await this.#changed.promise;
    return this.#take(this.#received.length);
  }

  async #chunks() {
    const chunks = [];
    for (;;) {
      const size = Number.parseInt((await this.#upTo("\r\n")).toString("latin1"), 16);
      if (size === 0) break;
      chunks.push(await this.#take(size));
      await this.#take(2);
    }
    while ((await this.#upTo("\r\n")).length > 2); // the trailers
    return Buffer.concat(chunks);
  }

  async #upTo(delimiter) {
    for (;;) {
      const end = this.#received.indexOf(delimiter);
      if (end >= 0) return this.#take(end + delimiter.length);
      await this.#more();
    }
  }

  async #take(length) {
    while (this.#received.length < length) await this.#more();
    const taken = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return taken;
  }

  async #more() {
    if (this.#ended) throw new Error("the connection was closed before the answer was complete");
    await this.#changed.promise;
  }

  #change(apply) {
    apply();
    const changed = this.#changed;
    this.#changed = deferred();
    changed.resolve();
  }
}

/** An answer. */
export class Answer {
  body = Buffer.alloc(0);
  /** HTTP/2 only. */
  trailers = {};

  constructor(status, headers) {
    this.status = status;
    this.headers = headers;
  }

  /** All values of a header. */
  all(name) {
    return this.headers.filter(([known]) => known === name).map(([, value]) => value);
  }

  /** The values of a header, joined; undefined: there is none. */
  header(name) {
    const values = this.all(name);
    return values.length === 0 ? undefined : values.join(", ");
  }

  text() {
    return this.body.toString("utf8");
  }

  json() {
    return JSON.parse(this.text());
  }
}

/**
 * One HTTP/2 request on a connection of its own. A header whose value is an array is sent as several fields.
 *
 * @param {number} port
 * @param {object} [options]
 * @param {Record<string, string | string[]>} [options.headers]
 * @param {string | Buffer} [options.body]
 * @param {Record<string, string>} [options.trailers]
 */
export async function requestH2(port, options) {
  const client = await connectH2(port);
  try {
    return await client.request(options);
  } finally {
    client.close();
  }
}

/** An HTTP/2 connection to a port on loopback. */
export async function connectH2(port) {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  await new Promise((resolve, reject) => {
    session.once("remoteSettings", resolve);
    session.once("error", reject);
  });
  session.on("error", () => {});
  return new ConnectionH2(session);
}

/** An HTTP/2 connection. */
export class ConnectionH2 {
  #session;

  constructor(session) {
    this.#session = session;
  }

  /** Sends a request and gives its answer. Options: see `requestH2`. */
  async request(options) {
    return this.open(options).answer;
  }

  /** Sends a request, or with `ends: false` its beginning; gives a way to reset it, and its answer. */
  open({ method = "GET", path = "/", host = "app.example.com", headers = {}, body, trailers, ends = true } = {}) {
    const pseudo = { ":method": method, ":path": path, ":authority": host, ":scheme": "http" };
    const stream = this.#session.request(
      { ...pseudo, ...headers },
      { endStream: ends && body === undefined && trailers === undefined, waitForTrailers: trailers !== undefined },
    );
    stream.setTimeout(ANSWERED_WITHIN, () => stream.close(http2.constants.NGHTTP2_CANCEL));
    if (trailers !== undefined) stream.once("wantTrailers", () => stream.sendTrailers(trailers));
    if (!ends) stream.write(body);
    else if (body !== undefined || trailers !== undefined) stream.end(body);
    const answer = collect(stream);
    answer.catch(() => {}); // whoever resets the stream does not await it
    return { reset: () => stream.close(http2.constants.NGHTTP2_CANCEL), answer };
  }

  close() {
    this.#session.destroy();
  }
}

const SEALED = /^__Host-stepgate_tx_|^id_token/;

/** Values of a cookie jar that a browser would send back, from the answers it has seen. */
export class CookieJar {
  #cookies = new Map();

  /** Takes the cookies of an answer. */
  take(answer) {
    for (const cookie of answer.all("set-cookie")) {
      const [pair, ...attributes] = cookie.split(";");
      const [name, value] = split(pair, "=");
      const gone = attributes.some((attribute) => /^\s*max-age\s*=\s*(0|-\d+)\s*$/i.test(attribute) || isPast(attribute));
      if (gone) this.#cookies.delete(name);
      else this.#cookies.set(name, SEALED.test(name) ? secret("sealed cookie", value) : value);
    }
  }

  /** Sets a cookie. */
  set(name, value) {
    this.#cookies.set(name, value);
  }

  /** The value of a cookie. */
  get(name) {
    return this.#cookies.get(name);
  }

  /** The names of all cookies. */
  names() {
    return [...this.#cookies.keys()];
  }

  /** Forgets a cookie. */
  delete(name) {
    this.#cookies.delete(name);
  }

  /** The header to send. */
  header() {
    return ["cookie", [...this.#cookies].map((pair) => pair.join("=")).join("; ")];
  }

  /** The headers to send: none without cookies. */
  headers() {
    return this.#cookies.size === 0 ? [] : [this.header()];
  }
}

function isPast(attribute) {
  const [, date] = /^\s*expires\s*=(.*)$/i.exec(attribute) ?? [];
  return Date.parse(date) < Date.now();
}

function encode({ method = "GET", path = "/", host = "app.example.com", headers = [], body, chunks, trailers = [] }) {
  const length = body === undefined ? [] : [["content-length", String(Buffer.byteLength(body))]];
  const chunked = chunks === undefined ? [] : [["transfer-encoding", "chunked"]];
  return Buffer.concat([
    bytes(method), bytes(" "), bytes(path), bytes(" HTTP/1.1\r\n"),
    ...fields([["host", host], ...headers, ...length, ...chunked]),
    bytes("\r\n"),
    ...(body === undefined ? [] : [Buffer.from(body)]),
    ...(chunks === undefined ? [] : [...chunks.map(chunk), bytes("0\r\n"), ...fields(trailers), bytes("\r\n")]),
  ]);
}

function fields(headers) {
  return headers.map(([name, value]) => Buffer.concat([bytes(name), bytes(": "), bytes(value), bytes("\r\n")]));
}

function chunk(content) {
  const data = Buffer.from(content);
  return Buffer.concat([bytes(`${data.length.toString(16)}\r\n`), data, bytes("\r\n")]);
}

function bytes(value) {
  return typeof value === "string" ? Buffer.from(value, "latin1") : value;
}

function field(line) {
  const [name, value] = split(line, ":");
  return [name.toLowerCase(), value.trim()];
}

function split(text, delimiter) {
  const at = text.indexOf(delimiter);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function collect(stream) {
  return new Promise((resolve, reject) => {
    let answer;
    const chunks = [];
    stream.on("response", (headers) => {
      const list = Object.entries(headers).filter(([name]) => !name.startsWith(":"));
      const flat = list.flatMap(([name, value]) => [value].flat().map((one) => [name, String(one)]));
      answer = new Answer(headers[":status"], flat);
    });
    stream.on("trailers", (trailers) => answer && (answer.trailers = trailers));
    stream.on("data", (data) => chunks.push(data));
    stream.on("error", reject);
    stream.on("close", () => {
      if (!answer) return reject(new Error("the stream was closed without an answer"));
      answer.body = Buffer.concat(chunks);
      resolve(answer);
    });
  });
}
