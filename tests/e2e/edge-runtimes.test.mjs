// What a gate asks of each runtime beside decisions: that it makes a POST once, whatever becomes of it; that it gives back what
// clients who go have held; that it hands over fields that come several times.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { startDeno, startProcess, startWorkerd } from "./support/edge.mjs";
import { inlineGate, NAVIGATION } from "./support/gate.mjs";
import { connect, request } from "./support/http.mjs";
import { ISSUER, mint } from "./support/tokens.mjs";
import { eventually } from "./support/wait.mjs";

const here = (file) => fileURLToPath(new URL(`edge/${file}`, import.meta.url));

const RUNTIMES = {
  workerd: (config, flags = []) => startWorkerd({
    flags,
    modules: { "probe-worker.js": here("probe-worker.js"), "probe.js": here("probe.js"), "config.json": config },
  }),
  Deno: (config) => startDeno(here("probe-deno.js"), { env: { CONFIG: JSON.stringify(config) } }),
  Node: (config) => startProcess(process.execPath, [here("probe-node.js")], { env: { CONFIG: JSON.stringify(config) }, pattern: /^port (\d+)/ }),
};

async function told({ port }) {
  return (await request(port, { headers: [["x-told", "1"]] })).json();
}

/** What becomes of a POST, once it has been read. */
const ENDS = {
  "is answered, and the connection stays open": (socket) => socket.write(ANSWER),
  "is closed without an answer": (socket) => socket.end(),
  "is reset": (socket) => socket.resetAndDestroy(),
  "is closed within the answer": (socket) => socket.end(ANSWER.slice(0, 20)),
  "is answered with 408": (socket) => socket.end("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
  "is answered with 503, to be tried again at once": (socket) =>
    socket.write("HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"),
  "is answered with 421": (socket) => socket.write("HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\n\r\n"),
  "is sent elsewhere": (socket) => socket.write("HTTP/1.1 307 Temporary Redirect\r\nlocation: /token\r\ncontent-length: 0\r\n\r\n"),
};
const ANSWER = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 25\r\n\r\n{\"error\":\"invalid_grant\"}";

/** A provider that counts what it reads, byte by byte: `posts` are the codes, in order. `how` tells what becomes of the next one. */
async function startTokenEndpoint() {
  const endpoint = { posts: [], connections: 0, reused: 0, how: undefined, close: undefined };
  const sockets = new Set();
  const server = net.createServer((socket) => {
    endpoint.connections += 1;
    let seen = 0;
    let received = "";
    sockets.add(socket.on("close", () => sockets.delete(socket)).on("error", () => {}));
    socket.setEncoding("latin1").on("data", (text) => {
      received += text;
      const [head, body] = received.split("\r\n\r\n");
      const [, length] = /^content-length: (\d+)/im.exec(head) ?? [];
      const whole = length !== undefined ? body?.length >= Number(length) : /\r\n0\r\n\r\n$/.test(received);
      if (body === undefined || !whole) return;
      received = "";
      seen += 1;
      if (seen > 1) endpoint.reused += 1;
      endpoint.posts.push(new URLSearchParams(body.match(/grant_type=.*|.*&code=.*/)?.[0]).get("code"));
      endpoint.how(socket);
    });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return Object.assign(endpoint, {
    port: server.address().port,
    async stop() {
      server.close();
      sockets.forEach((socket) => socket.destroy());
      await once(server, "close");
    },
  });
}

function loggingIn(port, more = {}) {
  return inlineGate({
    provider: { token_endpoint: `http://127.0.0.1:${port}/token`, timeout: "2s" },
    client: { secret: "s3cret of the client" },
    callback: { keys: [randomBytes(32).toString("base64")], ...more },
  });
}

/** A login that has come back from the provider: what the browser sends to the callback. */
async function returning({ port }) {
  const departure = await request(port, { path: "/salary", headers: NAVIGATION });
  const { searchParams } = new URL(departure.header("location"));
  const [cookie] = departure.all("set-cookie").find((line) => line.startsWith("__Host-stepgate_tx_")).split(";");
  return { state: searchParams.get("state"), cookie };
}

describe("a code is sent once", () => {
  for (const [name, start] of Object.entries(RUNTIMES)) {
    test(`in ${name}`, async (t) => {
      const endpoint = await startTokenEndpoint();
      t.after(() => endpoint.stop());
      const runtime = await start(loggingIn(endpoint.port));
      t.after(() => runtime.stop());
      const sent = [];
      const login = async (code, how) => {
        const { state, cookie } = await returning(runtime);
        endpoint.how = how;
        sent.push(code);
        const query = new URLSearchParams({ code, state, iss: ISSUER });
        return request(runtime.port, { path: `/callback?${query}`, headers: [...NAVIGATION, ["cookie", cookie]] });
      };
      const [keepOpen] = Object.values(ENDS);
      for (const [what, how] of Object.entries(ENDS)) {
        // On a connection of its own, then on whichever the runtime has kept.
        for (const round of ["first", "second", "third"]) {
          await login(`before-${what}-${round}`, keepOpen);
          const answer = await login(`${what}-${round}`, how);
          assert.ok(answer.status >= 400, `${what}: ${answer.status}`);
        }
      }
      assert.deepEqual(endpoint.posts, sent);
      t.diagnostic(`${sent.length} codes on ${endpoint.connections} connections`);
    });
  }
});

describe("clients that go leave nothing behind", () => {
  const CLIENTS = 100;

  /** A gate whose keys never come. */
  async function startWaiting(t, start, timeout, ...more) {
    const silent = await startSilent();
    t.after(() => silent.stop());
    const { provider, ...config } = loggingIn(silent.port, { response_mode: "form_post" });
    const jwks_uri = `http://127.0.0.1:${silent.port}/jwks`;
    const runtime = await start({ ...config, provider: { ...provider, jwks: undefined, jwks_uri, timeout } }, ...more);
    t.after(() => runtime.stop());
    return runtime;
  }
  const head = () => `GET /salary HTTP/1.1\r\nhost: app.example.com\r\ncookie: id_token=${mint()}\r\n\r\n`;

  for (const [name, start] of Object.entries(RUNTIMES)) {
    test(`in ${name}`, async (t) => {
      const runtime = await startWaiting(t, start, "30s", ...(name === "workerd" ? [["enable_request_signal"]] : []));
      const { cookie } = await returning(runtime);
      const heads = [
        head(),
        `POST /callback HTTP/1.1\r\nhost: app.example.com\r\ncookie: ${cookie}\r\n` +
          "content-type: application/x-www-form-urlencoded\r\ncontent-length: 1000\r\n\r\nstate=",
      ];
      const open = () => readdirSync(`/proc/${runtime.pid}/fd`).length;
      const hold = async (count) => eventually(10_000, `${count} requests on hold`, async () => (await told(runtime)).waiting === count);
      const round = async () => {
        const clients = await Promise.all(Array.from({ length: CLIENTS }, () => connect(runtime.port)));
        clients.forEach((client, at) => client.write(heads[at % heads.length]));
        await hold(CLIENTS);
        // workerd does not take the end of what a client sends for the end of the client.
        clients.forEach((client) => (name === "workerd" ? client.reset() : client.close()));
        await hold(0);
        return (await told(runtime)).memory;
      };
      const memory = await round();
      const files = open();
      for (let count = 0; count < 3; count += 1) assert.equal(await round(), memory);
      await eventually(5_000, "as many files are open as before", () => open() <= files);
    });
  }

  test("in workerd without its flag, when the wait ends", async (t) => {
    const runtime = await startWaiting(t, RUNTIMES.workerd, "1s");
    const client = await connect(runtime.port);
    client.write(head());
    await eventually(900, "a request on hold", async () => (await told(runtime)).waiting === 1);
    client.reset();
    await eventually(5_000, "none on hold", async () => (await told(runtime)).waiting === 0);
  });
});

/** A provider that never answers. */
async function startSilent() {
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket.on("close", () => sockets.delete(socket)).on("error", () => {}).resume());
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    port: server.address().port,
    async stop() {
      server.close();
      sockets.forEach((socket) => socket.destroy());
      await once(server, "close");
    },
  };
}

describe("fields that come several times", () => {
  const cookieOf = (token) => ["cookie", `id_token=${token}`];
  const bearer = (token) => ["authorization", `Bearer ${token}`];
  const [one, another] = [mint(), mint({ claims: { sub: "another" } })];
  const COOKIES = {
    "in the first cookie field": [[cookieOf(one), ["cookie", "a=1"], ["cookie", "b=2"]], "satisfied"],
    "in the last cookie field": [[["cookie", "a=1"], ["cookie", "b=2"], cookieOf(one)], "satisfied"],
    "two tokens in two cookie fields": [[cookieOf(one), ["cookie", "a=1"], cookieOf(another)], "token_ambiguous"],
  };
  const AUTHORIZATION = {
    "twice the same": [[bearer(one), bearer(one)], "satisfied"],
    "two that differ": [[bearer(one), bearer(another)], "token_ambiguous"],
    "one of another scheme": [[["authorization", "Basic dTpw"], bearer(one)], "satisfied"],
    "a header, and a cookie that differs": [[bearer(one), cookieOf(another)], "token_ambiguous"],
  };

  for (const [name, start] of Object.entries(RUNTIMES)) {
    test(`in ${name}`, async (t) => {
      const runtime = await start(inlineGate({ token: { header: "authorization" } }));
      t.after(() => runtime.stop());
      for (const [what, [headers, expected]] of Object.entries({ ...COOKIES, ...AUTHORIZATION })) {
        const answer = await request(runtime.port, { path: "/salary", headers });
        const { reasons: [reason] } = await told(runtime);
        if (name === "workerd" && what in COOKIES) {
          // It joins them with a comma: no cookie is recognized then, and none is taken for another.
          assert.notEqual(answer.status, 200, what);
          continue;
        }
        assert.equal(reason, expected, what);
        if (reason !== "satisfied") continue;
        for (const field of ["cookie", "authorization"]) {
          const values = (fields) => fields.filter(([known]) => known === field).map(([, value]) => value);
          const joined = (fields) => values(fields).join(field === "cookie" ? "; " : ", ");
          assert.equal(joined(answer.json()), joined(headers), `${what}: the app's ${field}`);
        }
      }
    });
  }
});
