// Apps behind the gate that read paths differently. To each of them `/salary/**`, but for `/salary/help`, and
// `/users/*/salary` are the secret, by routes and as files.
//
//   nginx      files below a root, and below an alias; slashes merged
//   proxied    nginx that passes the path on decoded, to the app `url`: what is encoded twice is read
//   express    Express 5 as it comes: routes that ignore case, then files
//   url        a server as people write it by hand: a URL parser, a decoder, a join of paths
//   starlette  Starlette under uvicorn: routes, then files
//   tomcat     Tomcat as it comes, with files: parameters of segments
//   lax        Tomcat that has been told to decode slashes and backslashes
//   router     find-my-way, Fastify's router: routes alone, all behind `;` is a query, a segment may be empty
//   micro      micro-httpd, with files: paths are strings of C
//
// They listen on sockets of the file system, and never close a connection that Envoy may be using.

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import express from "express";
import findMyWay from "find-my-way";

import { eventually } from "../support/wait.mjs";

/** What only the protected pages say, in a header as well where there may be no body. A request cannot bring it along. */
export const SECRET = randomUUID();

/** The origins, and which of them ignore case: their gate is told so. */
export const ORIGINS = {
  nginx: {}, proxied: {}, express: { ignoresCase: true }, url: {}, starlette: {}, tomcat: {}, lax: {}, router: {}, micro: {},
};

const HERE = fileURLToPath(new URL(".", import.meta.url));
const LISTENS_WITHIN = 20_000;

/** Starts them all: `{ socket(origin), stop() }`. */
export async function startOrigins() {
  const { STARLETTE, SERVERS } = process.env;
  if (!STARLETTE) throw new Error("STARLETTE is not set: it names the folder of its packages (`make test` sets it)");
  if (!SERVERS) throw new Error("SERVERS is not set: it names the folder of Tomcat and micro-httpd (`make test` sets it)");
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-origins-"));
  const socket = (origin) => path.join(directory, `${origin}.socket`);
  const site = path.join(directory, "site");
  const running = [];
  const remove = () => rmSync(directory, { recursive: true, force: true });
  process.once("exit", remove);
  const stop = async () => {
    await Promise.all(running.map((origin) => origin.stop()));
    process.removeListener("exit", remove);
    remove();
  };
  try {
    await writeSite(site);
    await writeFile(path.join(directory, "nginx.conf"), nginxConfiguration(site, socket));
    await writeTomcatConfiguration(path.join(directory, "conf"), site, socket);
    running.push(
      listening(expressApp(site), socket("express")),
      listening(urlApp, socket("url")),
      listening(routerApp(), socket("router")),
      perConnection(path.join(SERVERS, "usr/sbin/micro-httpd"), [site], socket("micro")),
      child("nginx", ["-p", directory, "-c", "nginx.conf", "-e", "stderr"]),
      child("python3", uvicorn(socket("starlette")), { PYTHONPATH: STARLETTE, SECRET, SITE: site }),
      child("java", tomcat(path.join(SERVERS, "usr/share/java"), directory)),
    );
    await Promise.race([
      Promise.all(Object.keys(ORIGINS).map((origin) => accepting(socket(origin)))),
      ...running.map(({ failed }) => failed),
    ]);
    return { socket, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function writeSite(site) {
  const files = {
    "index.html": "home",
    "salary/index.html": SECRET,
    "salary/2026": SECRET,
    "salary/2025/november": SECRET,
    "salary/help": "help",
    "users/7/salary": SECRET,
    "users/7/name": "name",
  };
  for (const [name, text] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(site, name)), { recursive: true });
    await writeFile(path.join(site, name), text);
  }
}

function nginxConfiguration(site, socket) {
  return `
    daemon off;
    master_process off;
    pid nginx.pid;
    events {}
    http {
      access_log off;
      client_body_temp_path body;
      proxy_temp_path proxy;
      fastcgi_temp_path fastcgi;
      uwsgi_temp_path uwsgi;
      scgi_temp_path scgi;
      keepalive_timeout 1d;
      keepalive_requests 1000000000;
      merge_slashes on;
      server {
        listen unix:${socket("nginx")};
        root ${site};
        location /users/ { alias ${site}/users/; }
      }
      upstream url { server unix:${socket("url")}; }
      server {
        listen unix:${socket("proxied")};
        location / { proxy_pass http://url$uri; }
      }
    }`;
}

async function writeTomcatConfiguration(conf, site, socket) {
  const connector = (origin, settings) =>
    `<Connector protocol="org.apache.coyote.http11.Http11NioProtocol" unixDomainSocketPath="${socket(origin)}"
      keepAliveTimeout="-1" maxKeepAliveRequests="-1" ${settings}/>`;
  const server = `
    <Server port="-1">
      <Service name="Catalina">
        ${connector("tomcat", "")}
        ${connector("lax", 'encodedSolidusHandling="decode" encodedReverseSolidusHandling="decode" allowBackslash="true"')}
        <Engine name="Catalina" defaultHost="app">
          <Host name="app" appBase="."><Context path="" docBase="${site}"/></Host>
        </Engine>
      </Service>
    </Server>`;
  const app = `
    <web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
      <servlet>
        <servlet-name>default</servlet-name>
        <servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class>
      </servlet>
      <servlet-mapping><servlet-name>default</servlet-name><url-pattern>/</url-pattern></servlet-mapping>
      <welcome-file-list><welcome-file>index.html</welcome-file></welcome-file-list>
    </web-app>`;
  await mkdir(conf);
  await writeFile(path.join(conf, "server.xml"), server);
  await writeFile(path.join(conf, "web.xml"), app);
}

function tomcat(jars, directory) {
  const soon = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
  const home = [`-Dcatalina.home=${directory}`, `-Dcatalina.base=${directory}`, `-Djava.io.tmpdir=${directory}`];
  return [...soon, ...home, "-cp", path.join(jars, "*"), "org.apache.catalina.startup.Bootstrap", "start"];
}

function expressApp(site) {
  const app = express().set("env", "test"); // which logs no errors
  const secret = (_request, response) => response.set("x-secret", SECRET).send(SECRET);
  app.all("/salary/help", (_request, response) => response.send("help"));
  app.all("/salary{/*rest}", secret);
  app.all("/users/:user/salary", secret);
  app.use(express.static(site));
  return app;
}

function urlApp(request, response) {
  let pathname;
  try {
    pathname = path.posix.join("/", decodeURIComponent(new URL(request.url, "http://app").pathname));
  } catch {
    response.writeHead(400).end();
    return;
  }
  const isSecret = /^\/salary(\/|$)(?!help$)|^\/users\/[^/]+\/salary$/.test(pathname);
  if (isSecret) response.writeHead(200, { "x-secret": SECRET }).end(SECRET);
  else response.writeHead(404).end("not found");
}

function routerApp() {
  const router = findMyWay({
    useSemicolonDelimiter: true,
    ignoreTrailingSlash: true,
    defaultRoute: (_request, response) => response.writeHead(404).end("not found"),
  });
  const secret = (_request, response) => response.writeHead(200, { "x-secret": SECRET }).end(SECRET);
  router.all("/salary/help", (_request, response) => response.end("help"));
  for (const route of ["/salary", "/salary/*", "/users/:user/salary"]) router.all(route, secret);
  return (request, response) => router.lookup(request, response);
}

function uvicorn(socket) {
  const server = ["--uds", socket, "--http", "h11", "--timeout-keep-alive", "86400", "--log-level", "critical"];
  return ["-B", "-m", "uvicorn", "--app-dir", HERE, ...server, "starlette_app:app"];
}

/** An app in this process. */
function listening(app, socket) {
  const server = http.createServer({ keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 }, app).listen(socket);
  const failed = new Promise((_, reject) => server.once("error", reject));
  failed.catch(() => {});
  // Left to itself, Node.js would go on with the connection and might never answer the next request on it.
  server.on("upgrade", (request, connection) => {
    const response = new http.ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(connection);
    response.once("finish", () => connection.end());
    app(request, response);
  });
  return {
    failed,
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A server of which each connection has a process of its own, as by inetd. */
function perConnection(command, parameters, socket) {
  const server = net.createServer({ pauseOnConnect: true }, (connection) => {
    const started = spawn(command, parameters, { stdio: [connection, connection, "ignore"] });
    started.once("error", (error) => server.emit("error", error));
    started.once("spawn", () => connection.destroy()); // the process has it now
  }).listen(socket);
  const failed = new Promise((_, reject) => server.once("error", reject));
  failed.catch(() => {});
  return {
    failed,
    stop: () => new Promise((resolve) => server.close(resolve)),
  };
}

/** A process that ends with this one. */
function child(command, parameters, environment = {}) {
  const started = spawn(command, parameters, {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  started.stderr.setEncoding("utf8").on("data", (text) => (log += text));
  const end = () => started.kill("SIGKILL");
  process.once("exit", end);
  const ended = new Promise((resolve, reject) => {
    started.once("error", reject);
    started.once("close", resolve);
  }).finally(() => process.removeListener("exit", end));
  const failed = ended.then((code) => {
    throw new Error(`${command} ended (${code}):\n${log}`);
  });
  failed.catch(() => {});
  return {
    failed,
    async stop() {
      started.kill("SIGTERM");
      await ended.catch(() => {});
    },
  };
}

async function accepting(socket) {
  await eventually(LISTENS_WITHIN, `an origin listens on ${socket}`, async () => {
    const connection = net.connect(socket);
    await once(connection, "connect");
    connection.destroy();
    return true;
  });
}
