// Requests that try to get past the package: what is forwarded must be what was judged, for the one who asked.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import net from "node:net";
import { after, before, describe, test } from "node:test";

import { createGate, protect, proxy } from "../../dist/edge/node.js";

const ISSUER = "https://idp.example.test/";
const CLIENT = { id: "client", redirect_uri: "https://app.example.com/callback", secret: "a client secret of more than 32 bytes" };
const CONFIG = {
  provider: { issuer: ISSUER, authorization_endpoint: `${ISSUER}authorize`, jwks_uri: `${ISSUER}keys` },
  client: CLIENT,
  token: { algorithms: ["HS256"] },
  forward: { headers: { "x-user-id": "sub" } },
  rules: [{ paths: ["/salary/**"] }, { hosts: ["admin.example.com"], paths: ["/**"] }],
};

function tokenOf(sub) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: ISSUER, sub, aud: CLIENT.id, iat: now, exp: now + 600, amr: ["mfa"] };
  const text = [{ alg: "HS256" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${createHmac("sha256", CLIENT.secret).update(text).digest("base64url")}`;
}

test("nobody passes as the one before, with whose identity", async () => {
  const told = [];
  const gate = await createGate({ config: CONFIG, onDecision: (...what) => told.push(what[0]) });
  const [mallory, admin] = ["mallory", "admin"].map(tokenOf);
  const identity = async (token) => {
    let seen;
    const headers = { host: "app.example.com", cookie: `id_token=${token}` };
    await gate.handle(new Request("http://app.example.com/page", { headers }), (request) => {
      seen = request.headers.get("x-user-id");
      return new Response();
    });
    return seen;
  };
  for (const [token, name] of [[mallory, "mallory"], [mallory, "mallory"], [admin, "admin"], [mallory, "mallory"], [admin, "admin"]]) {
    assert.equal(await identity(token), name);
  }
  for (const decision of told) assert.deepEqual(Object.keys(decision), ["decision", "reason", "rules"], "no fields, which may be secret");
  gate.close();
});

test("a host with a path in it does not move the path past the rules", async () => {
  const gate = await createGate({ config: CONFIG });
  for (const [host, target] of [["a/salary?", "/"], ["a/salary", "/x"], ["a/salary#", "/x"], ["a\\salary?", "/x"], ["a", "\\salary/x"], ["a", "*salary/x"]]) {
    const request = { url: `http://${host}${target}`, method: "GET", headers: new Headers({ host }) };
    const response = await gate.handle(request, () => assert.fail(`${host}${target} is forwarded`));
    assert.equal(response.status, 400, `${host}${target}`);
  }
  gate.close();
});

test("a host that is no field, as in HTTP/2, is that of the URL; where there is none, it could be any", async () => {
  const gate = await createGate({ config: CONFIG });
  const statuses = [];
  for (const host of ["www.example.com", "www.example.com:8443", "admin.example.com", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.1"]) {
    const request = { url: `http://${host}/x`, method: "GET", headers: new Headers() };
    statuses.push((await gate.handle(request, () => new Response())).status);
  }
  assert.deepEqual(statuses, [200, 200, 302, 302, 302, 302, 302]);
  gate.close();
});

describe("in Node", () => {
  const seen = [];
  let app;
  let gate;
  let server;
  before(async () => {
    app = createServer((request, response) => {
      request.resume().on("end", () => {
        seen.push({ url: request.url, host: request.headers.host, trailers: request.trailers });
        response.end("app");
      });
    });
    app.on("upgrade", (request, socket) => {
      seen.push({ url: request.url, upgrade: request.headers.upgrade });
      socket.end("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    });
    await once(app.listen(0, "127.0.0.1"), "listening");
    gate = await createGate({ config: CONFIG });
    server = protect(gate, proxy(`http://127.0.0.1:${app.address().port}`)).attach(createServer());
    await once(server.listen(0, "127.0.0.1"), "listening");
  });
  after(async () => {
    for (const one of [server, app]) {
      one.close();
      one.closeAllConnections();
      await once(one, "close");
    }
    gate.close();
  });

  /** Sends parts, each once the one before has been answered by `100 Continue` or read, and gives what comes back. */
  async function send(...parts) {
    const socket = net.connect(server.address().port, "127.0.0.1");
    let answer = "";
    socket.setEncoding("latin1").on("data", (text) => { answer += text; });
    await once(socket, "connect");
    for (const part of parts) await new Promise((resolve) => socket.write(part, () => setImmediate(resolve)));
    await once(socket, "close");
    return answer;
  }
  const status = (answer) => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);

  test("an upgrade is to a WebSocket, and has no body", async () => {
    const before = seen.length;
    const head = (more) => `GET /page HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n${more}\r\n`;
    for (const more of [
      "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
      "upgrade: websocket, h2c\r\n",
      "upgrade: websocket\r\ncontent-length: 5\r\n",
      "upgrade: websocket\r\ntransfer-encoding: chunked\r\n",
    ]) {
      assert.equal(status(await send(head(more))), 400, more);
    }
    assert.equal(seen.length, before, "the app sees nothing");
    assert.equal(status(await send(head("upgrade: websocket\r\n"))), 101);
  });

  test("a host that is named twice, or in the target, could be any", async () => {
    const before = seen.length;
    for (const head of [
      "GET /x HTTP/1.1\r\nhost: admin.example.com\r\nhost: www.example.com\r\nconnection: close\r\n\r\n",
      "GET http://admin.example.com/x HTTP/1.1\r\nhost: www.example.com\r\nconnection: close\r\n\r\n",
    ]) {
      assert.ok([302, 400].includes(status(await send(head))), head);
    }
    assert.equal(seen.length, before, "the app sees nothing");
  });

  test("an asterisk with more behind it is no target", async () => {
    const before = seen.length;
    for (const target of ["*salary/x", "*/salary/x", "**"]) {
      assert.equal(status(await send(`GET ${target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`)), 400, target);
    }
    assert.equal(seen.length, before, "the app sees nothing");
    assert.equal(status(await send("OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")), 200);
  });

  test("trailers end nothing, and do not reach the app", async () => {
    const head = "POST /page HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    assert.equal(status(await send(head, "0\r\nx-user-id: admin\r\n\r\n")), 200);
    assert.deepEqual(seen.at(-1).trailers, {});
  });
});
