// The package in front of an app: docs/edge.md's examples as they stand, in workerd, Deno and Node, with a real provider. A login
// that begins at Envoy ends at the edge, and the other way round; in workerd, also with Chromium.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";

import { chromiumMissing, launchChromium } from "./demo-support.mjs";
import { PACKAGE, runDeno, startDeno, startProcess, startWorkerd } from "./support/edge.mjs";
import { startEnvoy } from "./support/envoy.mjs";
import { NAVIGATION, REDIRECT_URI } from "./support/gate.mjs";
import { connectH2, request } from "./support/http.mjs";
import { startOidc } from "./support/oidc.mjs";
import { ORIGIN, Person } from "./support/person.mjs";

const page = readFileSync(new URL("../../docs/edge.md", import.meta.url), "utf8");
const KEY = randomBytes(32).toString("base64");
const CLIENT = { id: "client", secret: "s3cret-of-the-client" };
const SECRETS = { STEPGATE_CLIENT_SECRET: CLIENT.secret, STEPGATE_KEY: KEY };

/** A block of the guide, by the words behind its fence. */
function block(info) {
  const [, text] = new RegExp(`\`\`\`${info}\\n(.*?)\`\`\``, "s").exec(page);
  return text;
}

/** The guide's configuration, for this provider. */
function configured(oidc, changes = {}) {
  const config = JSON.parse(block("json stepgate"));
  config.provider = { issuer: oidc.issuer, ...changes.provider };
  Object.assign(config.client, { id: CLIENT.id, ...changes.client });
  return { ...config, ...changes.root };
}

const RUNTIMES = {
  workerd: (config, app) => startWorkerd({
    modules: { "worker.js": block("js worker"), "stepgate.json": config },
    bindings: SECRETS,
    services: { APP: app.port },
  }),
  Deno: (config, app, secrets = SECRETS) => startExample("deno", config, { ...secrets, PORT: "0" }),
  Node: (config, app, secrets = SECRETS) =>
    startExample("node", config, { ...secrets, PORT: "0", APP: `http://127.0.0.1:${app.port}` }),
};

const DENO_PROXY = "Deno as a proxy";

/** An example in a directory of its own, where it finds the package and its configuration. */
async function startExample(runtime, config, env) {
  const directory = mkdtempSync(path.join(tmpdir(), "stepgate-example-"));
  const cleanUp = () => rmSync(directory, { recursive: true });
  writeFileSync(path.join(directory, "stepgate.json"), JSON.stringify(config));
  writeFileSync(path.join(directory, "example.mjs"), block(`js ${runtime}`));
  mkdirSync(path.join(directory, "node_modules"));
  symlinkSync(PACKAGE, path.join(directory, "node_modules/stepgate"));
  if (runtime === "deno") {
    const imports = { "stepgate/deno": new URL("../../dist/edge/deno.js", import.meta.url).href };
    writeFileSync(path.join(directory, "imports.json"), JSON.stringify({ imports }));
    return startDeno("example.mjs", { env, cwd: directory, importMap: "imports.json", cleanUp });
  }
  return startProcess(process.execPath, ["example.mjs"], { env, cwd: directory, pattern: /^port (\d+)/, cleanUp });
}

describe("the package at the edge", () => {
  let app;
  let oidc;
  let envoy;
  const runtimes = {};

  before(async () => {
    app = await startApp();
    oidc = await startOidc({
      clients: [{ client_id: CLIENT.id, client_secret: CLIENT.secret }],
      redirectUris: [REDIRECT_URI],
    });
    const config = configured(oidc);
    for (const [name, start] of Object.entries(RUNTIMES)) runtimes[name] = await start(config, app);
    runtimes[DENO_PROXY] = await startDeno(new URL("edge/proxy-deno.js", import.meta.url).pathname, {
      env: { ...SECRETS, CONFIG: JSON.stringify(config), APP: `http://127.0.0.1:${app.port}` },
    });
    envoy = await startEnvoy({
      listeners: [{ name: "gate", config: { ...config, provider: { ...config.provider, cluster: "idp" } }, env: SECRETS }],
      clusters: { app: app.port, idp: oidc.port },
    });
  });
  after(async () => {
    await envoy?.stop();
    await Promise.all(Object.values(runtimes).map((runtime) => runtime.stop()));
    await Promise.all([oidc, app].map((server) => server?.stop()));
  });

  const door = (name) => (message) => request(runtimes[name].port, message);

  for (const name of Object.keys(RUNTIMES)) {
    test(`a person logs in through ${name}, and the app gets to know who`, async () => {
      const person = new Person(door(name));
      const first = await person.open("/");
      assert.equal(first.status, 200);
      assert.match(first.text(), /stranger/);
      const answers = await person.visit("/salary?month=may");
      assert.equal(answers.at(-1).status, 200, answers.at(-1).text());
      assert.equal(answers.at(-1).url, `${ORIGIN}/salary?month=may`);
      assert.match(answers.at(-1).text(), /Hello ada/);
      assert.equal(answers.at(-1).header("vary"), "Cookie");
    });

    test(`a script gets 401 in ${name}`, async () => {
      const answer = await request(runtimes[name].port, { path: "/salary", headers: [["accept", "application/json"]] });
      assert.equal(answer.status, 401);
      assert.equal(answer.json().reason, "token_missing");
      assert.match(answer.header("www-authenticate"), /^Bearer error="invalid_token"/);
    });

    test(`HEAD in ${name}`, async () => {
      const answer = await request(runtimes[name].port, { method: "HEAD", path: "/salary", headers: NAVIGATION });
      assert.equal(answer.status, 302);
    });

    for (const [from, to] of [["Envoy", name], [name, "Envoy"]]) {
      test(`a login that began at ${from} ends at ${to}`, async () => {
        const doors = { Envoy: [envoy, "gate"], [name]: [door(name)] };
        const person = new Person(...doors[from]);
        const sent = await person.visit("/salary/2026", { until: ({ href }) => href.startsWith(REDIRECT_URI) });
        person.turnsTo(...doors[to]);
        const answers = await person.visit(sent.at(-1).header("location"));
        assert.equal(answers[0].status, 302);
        assert.equal(answers.at(-1).url, `${ORIGIN}/salary/2026`);
        assert.equal(answers.at(-1).status, 200);
        person.turnsTo(...doors[from]);
        assert.equal((await person.open("/salary/2026")).status, 200, "and the token is good at both");
      });
    }
  }

  for (const name of ["workerd", DENO_PROXY, "Node"]) {
    describe(`through ${name} to an app elsewhere`, () => {
      let person;
      const get = (target, options) => person.open(target, options);

      before(async () => {
        person = new Person(door(name));
        assert.equal((await person.visit("/salary")).at(-1).status, 200);
      });

      test("redirects and several cookies arrive as they are", async () => {
        const answer = await get("/salary/cookies");
        assert.equal(answer.status, 303);
        assert.equal(answer.header("location"), "/elsewhere");
        assert.deepEqual(answer.all("set-cookie"), ["a=1; Path=/", "b=2; Path=/", "c=3; Expires=Wed, 21 Oct 2099 07:28:00 GMT"]);
      });

      test("a compressed answer stays so", async () => {
        const answer = await get("/salary/gzip", { headers: [...NAVIGATION, ["accept-encoding", "gzip"]] });
        assert.equal(answer.header("content-encoding"), "gzip");
        assert.equal(gunzipSync(answer.body).toString(), "compressed");
      });

      test("an answer streams: its first part is there before the app has the second", async () => {
        const { connection } = await opened(runtimes[name].port, "GET", "/salary/slow", person);
        await connection.receives("first part");
        app.goOn();
        await connection.receives("second part");
        connection.close();
      });

      test("a body streams: the app has its first part before the client has sent the second", async () => {
        const { connection } = await opened(runtimes[name].port, "POST", "/salary/upload", person, "transfer-encoding: chunked\r\n");
        connection.write("6\r\nfirst \r\n");
        await app.received("first ");
        connection.write("4\r\npart\r\n0\r\n\r\n");
        await connection.receives("10 bytes");
        connection.close();
      });

      test("an upgrade to WebSocket, and nothing without a token", async () => {
        const fields = `connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${KEY.slice(0, 22)}==\r\n`;
        const { connection } = await opened(runtimes[name].port, "GET", "/salary/socket", person, fields);
        await connection.receives("101 Switching Protocols");
        connection.write(frame("ping"));
        await connection.receives("echo: ping");
        connection.close();
        const refused = await opened(runtimes[name].port, "GET", "/salary/socket", undefined, fields);
        await refused.connection.receives("401 Unauthorized");
        refused.connection.close();
      });

      test("a client that goes is gone for the app, too", async () => {
        const { connection } = await opened(runtimes[name].port, "GET", "/salary/for-ever", person);
        await connection.receives("begun");
        connection.close();
        await app.abandoned("/salary/for-ever");
      });
    });
  }

  describe("HTTP/2, in Deno", () => {
    let client;
    let cookies;
    before(async () => {
      const person = new Person(door(DENO_PROXY));
      assert.equal((await person.visit("/salary")).at(-1).status, 200);
      cookies = person.cookies().header()[1].split("; ");
      client = await connectH2(runtimes[DENO_PROXY].port);
    });
    after(() => client?.close());

    test("cookies in fields of their own, many requests at a time", async () => {
      const path = "/salary?month=may";
      const answers = await Promise.all(Array.from({ length: 32 }, (_, at) =>
        client.request({ path, headers: { accept: "application/json", "x-user-id": "root", ...(at % 2 && { cookie: cookies }) } })));
      answers.forEach((answer, at) => {
        assert.equal(answer.status, at % 2 ? 200 : 401);
        if (at % 2) assert.match(answer.text(), /^Hello ada/);
      });
    });

    test("a body streams, and a reset stream is gone for the app, too", async () => {
      const upload = client.open({ method: "POST", path: "/salary/upload", headers: { cookie: cookies }, body: "over HTTP/2 ", ends: false });
      await app.received("over HTTP/2 ");
      upload.reset();
      const endless = client.open({ path: "/salary/for-ever?h2", headers: { cookie: cookies } });
      await app.reached("/salary/for-ever?h2");
      endless.reset();
      await app.abandoned("/salary/for-ever?h2");
      assert.equal((await client.request({ path: "/" })).status, 200, "the connection is of use still");
    });
  });

  test("in Chromium", { skip: chromiumMissing(), timeout: 60_000 }, async (t) => {
    const own = await startOwn();
    t.after(own.stop);
    const chromium = await launchChromium();
    t.after(() => chromium.close());
    const tab = await chromium.newPage();
    await tab.goto(`${own.origin}/salary?month=may`);
    assert.equal(tab.url(), `${own.origin}/salary?month=may`);
    assert.match(await tab.textContent("body"), /Hello ada/);
    const told = await tab.evaluate(() => fetch("/salary", { method: "POST", body: "x" }).then((answer) => answer.status));
    assert.equal(told, 200);
  });

  /** A worker at an address that a browser can go to. */
  async function startOwn() {
    const port = await freePort();
    const origin = `http://127.0.0.1:${port}`;
    const provider = await startOidc({
      clients: [{ client_id: CLIENT.id, client_secret: CLIENT.secret }],
      redirectUris: [`${origin}/callback`],
    });
    const config = configured(provider, { client: { redirect_uri: `${origin}/callback` }, root: { token: { cookie: "id_token" } } });
    const worker = await startWorkerd({
      modules: { "worker.js": block("js worker"), "stepgate.json": config }, bindings: SECRETS, services: { APP: app.port }, port,
    });
    return { origin, stop: async () => { await worker.stop(); await provider.stop(); } };
  }

  for (const [name, start] of Object.entries(RUNTIMES)) {
    test(`a refused configuration is 503 for everything in ${name}`, async (t) => {
      const runtime = await start({ ...configured(oidc), rules: [], client: {} }, app);
      t.after(() => runtime.stop());
      const seen = app.count;
      for (const target of ["/", "/salary", "/callback"]) {
        assert.equal((await request(runtime.port, { path: target, headers: NAVIGATION })).status, 503);
      }
      assert.equal(app.count, seen, "nothing was forwarded");
      for (const problem of ["client.id: missing", "client.redirect_uri: missing", "rules: must"]) {
        assert.ok(runtime.log.includes(problem), runtime.log);
      }
    });
  }

  test("the types fit the examples", async () => {
    await runDeno(["check", "--no-config", "--no-lock", "--quiet", new URL("edge/types.ts", import.meta.url).pathname]);
  });
});

/** An app with pages of all kinds, for as long as a test wants. */
async function startApp() {
  const uploads = [];
  const reached = new Set();
  const gone = new Set();
  let waiting = [];
  let goOn;
  const changed = () => { waiting.forEach((wake) => wake()); waiting = []; };
  const until = async (is) => { while (!is()) await new Promise((resolve) => waiting.push(resolve)); };
  const app = {
    count: 0,
    goOn: () => goOn(),
    received: (text) => until(() => uploads.join("").includes(text)),
    reached: (target) => until(() => reached.has(target)),
    abandoned: (target) => until(() => gone.has(target)),
    async stop() {
      sockets.forEach((socket) => socket.destroy());
      server.close();
      await once(server, "close");
    },
  };
  const sockets = new Set();
  const pages = {
    "/salary/cookies": (_, response) => response.writeHead(303, {
      location: "/elsewhere", "set-cookie": ["a=1; Path=/", "b=2; Path=/", "c=3; Expires=Wed, 21 Oct 2099 07:28:00 GMT"],
    }).end(),
    "/salary/gzip": (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync("compressed")),
    "/salary/slow": (_, response) => {
      response.write("first part");
      goOn = () => response.end("second part");
    },
    "/salary/upload": async (incoming, response) => {
      let length = 0;
      for await (const chunk of incoming) { uploads.push(chunk); length += chunk.length; changed(); }
      response.end(`${length} bytes`);
    },
    "/salary/for-ever": (incoming, response) => {
      // A runtime may not notice before it has something to send.
      const more = setInterval(() => response.write("begun"), 10);
      response.on("close", () => { clearInterval(more); gone.add(incoming.url); changed(); });
    },
  };
  const server = createServer((incoming, response) => {
    app.count += 1;
    reached.add(incoming.url);
    changed();
    response.setHeader("content-type", "text/plain");
    const page = pages[incoming.url.split("?")[0]] ?? (() => response.end(`Hello ${incoming.headers["x-user-id"] ?? "stranger"}\n`));
    page(incoming, response);
  });
  server.on("connection", (socket) => sockets.add(socket.on("close", () => sockets.delete(socket))));
  server.on("upgrade", (incoming, socket) => {
    const accept = createHash("sha1").update(`${incoming.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ${accept.digest("base64")}\r\n\r\n`);
    socket.on("error", () => {});
    socket.on("data", (bytes) => { if ((bytes[0] & 15) === 1) socket.write(unmasked(`echo: ${textOf(bytes)}`)); });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  app.port = server.address().port;
  return app;
}

/** A connection with a request's head sent on it, which tells when something arrives. */
async function opened(port, method, target, person, fields = "") {
  const socket = net.connect(port, "127.0.0.1");
  await once(socket, "connect");
  let received = "";
  socket.setEncoding("latin1").on("data", (text) => { received += text; }).on("error", () => {});
  const cookie = person ? `${person.cookies().header().join(": ")}\r\n` : "";
  socket.write(`${method} ${target} HTTP/1.1\r\nhost: app.example.com\r\n${cookie}${fields}\r\n`);
  return {
    connection: {
      write: (bytes) => socket.write(bytes),
      close: () => socket.destroy(),
      async receives(text) {
        while (!received.includes(text)) {
          await Promise.race([once(socket, "data"), once(socket, "close").then(() => assert.fail(`closed before: ${text}`))]);
        }
      },
    },
  };
}

/** A text frame of a client (RFC 6455 section 5.2), masked with zeros. */
function frame(text) {
  return Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0, ...Buffer.from(text)]);
}

function unmasked(text) {
  return Buffer.from([0x81, text.length, ...Buffer.from(text)]);
}

function textOf(bytes) {
  const mask = bytes.subarray(2, 6);
  return Buffer.from(bytes.subarray(6, 6 + (bytes[1] & 127)).map((byte, at) => byte ^ mask[at % 4])).toString();
}

async function freePort() {
  const server = net.createServer();
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
