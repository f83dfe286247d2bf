// Edge runtimes, started for a test and stopped by it: workerd and Deno as processes of their own, Node in this one.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { assertKeepsSecrets } from "./secrets.mjs";

const REPOSITORY = fileURLToPath(new URL("../../../", import.meta.url));
const STARTED_WITHIN = 30_000;

/** The package under test. */
export const PACKAGE = path.join(REPOSITORY, "dist/edge");

/** So new that all that runtimes offer by default today is there. */
const COMPATIBILITY_DATE = "2026-11-01";

const require = createRequire(import.meta.url);

/** The binaries come with packages for one platform each, so that no script of theirs has to run. */
const BINARIES = {
  workerd: () => require.resolve("@cloudflare/workerd-linux-64/bin/workerd"),
  deno: () => path.join(path.dirname(require.resolve("@deno/linux-x64-glibc/package.json")), "deno"),
};

/** workerd's binary. */
export const WORKERD = BINARIES.workerd();

/**
 * Starts workerd with one worker, `main`, which finds the package under `stepgate/`.
 *
 * @param {object} options
 * @param {Record<string, string | object>} options.modules  by name: the path of a file, or text, or an object for JSON;
 *   the first one is the worker
 * @param {Record<string, string>} [options.bindings]        texts
 * @param {Record<string, number>} [options.services]        by binding: a port on loopback
 * @param {number} [options.port]                            to listen at; by default one that the kernel picks
 * @param {string[]} [options.flags]                         compatibility flags
 */
export async function startWorkerd({ modules, bindings = {}, services = {}, flags = [], port = 0 }) {
  const directory = mkdtempSync(path.join(tmpdir(), "stepgate-workerd-"));
  const listed = Object.entries(modules).map(([name, content]) => {
    if (typeof content === "object") {
      writeFileSync(path.join(directory, name.replaceAll("/", "_")), JSON.stringify(content));
      return `(name = ${quoted(name)}, json = embed ${quoted(name.replaceAll("/", "_"))})`;
    }
    writeFileSync(path.join(directory, name.replaceAll("/", "_")), path.isAbsolute(content) ? readFileSync(content) : content);
    return `(name = ${quoted(name)}, esModule = embed ${quoted(name.replaceAll("/", "_"))})`;
  });
  for (const file of readdirSync(PACKAGE).filter((file) => /\.(js|wasm)$/.test(file))) {
    writeFileSync(path.join(directory, `stepgate_${file}`), readFileSync(path.join(PACKAGE, file)));
    const exported = { "worker.js": "stepgate/worker" }[file] ?? `stepgate/${file}`;
    listed.push(`(name = "${exported}", ${file.endsWith(".wasm") ? "wasm" : "esModule"} = embed "stepgate_${file}")`);
  }
  const bound = [
    ...Object.entries(bindings).map(([name, text]) => `(name = ${quoted(name)}, text = ${quoted(text)})`),
    ...Object.keys(services).map((name) => `(name = ${quoted(name)}, service = ${quoted(name)})`),
  ];
  const external = Object.entries(services).map(([name, port]) =>
    `(name = ${quoted(name)}, external = (address = "127.0.0.1:${port}", http = ()))`);
  writeFileSync(path.join(directory, "config.capnp"), `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "internet", network = (allow = ["local"])),
    ${external.join(",\n    ")}
  ],
  sockets = [(name = "main", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [${listed.join(",\n    ")}],
  bindings = [${bound.join(", ")}],
  compatibilityDate = "${COMPATIBILITY_DATE}",
  compatibilityFlags = [${flags.map(quoted).join(", ")}],
);
`);
  return startWorkerdIn({ directory, socket: "main", cleanUp: () => rmSync(directory, { recursive: true }) });
}

/** Starts workerd with the configuration of a directory, `config.capnp`; its port is that of the socket. */
export async function startWorkerdIn({ directory, socket, env = {}, cleanUp }) {
  const child = spawn(WORKERD, ["serve", "--control-fd=3", path.join(directory, "config.capnp")], {
    env: { HOME: process.env.HOME, ...env }, stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  return started(child, [child.stdio[3]], new RegExp(`"socket":"${socket}","port":(\\d+)`), cleanUp);
}

/** Starts a program in Deno, which prints the port that it listens at. It may read what it needs, and use loopback. */
export async function startDeno(file, { args = [], importMap, ...options } = {}) {
  const permissions = ["--allow-net=127.0.0.1,localhost,0.0.0.0", "--allow-read", "--allow-env"];
  const map = importMap === undefined ? [] : [`--import-map=${importMap}`];
  const all = ["run", "--no-config", "--no-lock", ...map, ...permissions, file, ...args];
  return startProcess(BINARIES.deno(), all, { ...options, pattern: /^(?:port |Listening on .*:)(\d+)/ });
}

/** Starts a program that prints the port that it listens at. */
export async function startProcess(binary, args, { env = {}, cwd, pattern, cleanUp }) {
  const child = spawn(binary, args, {
    cwd, env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", HOME: process.env.HOME, ...env }, stdio: ["ignore", "pipe", "pipe"],
  });
  return started(child, [child.stdout, child.stderr], pattern, cleanUp);
}

/** Runs Deno and gives what it prints; it fails when Deno does. */
export async function runDeno(args) {
  const child = spawn(BINARIES.deno(), args, { env: { NO_COLOR: "1", HOME: process.env.HOME }, stdio: ["ignore", "pipe", "pipe"] });
  let told = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => { told += text; });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`deno ${args[0]} ended with ${code}:\n${told}`);
  return told;
}

async function started(child, streams, pattern, cleanUp = () => {}) {
  const runtime = {
    pid: child.pid,
    log: "",
    port: undefined,
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL"); // on SIGTERM, workerd waits for what is under way
        await once(child, "close");
      }
      cleanUp();
      assertKeepsSecrets(runtime.log, "the log of a runtime");
    },
  };
  for (const output of [child.stdout, child.stderr]) {
    output.setEncoding("utf8").on("data", (text) => { runtime.log += text; });
  }
  const timer = setTimeout(() => child.kill("SIGKILL"), STARTED_WITHIN);
  const lines = streams.map((stream) => createInterface({ input: stream }));
  try {
    runtime.port = await new Promise((resolve, reject) => {
      for (const reader of lines) {
        reader.on("line", (line) => {
          const [, port] = pattern.exec(line) ?? [];
          if (port !== undefined) resolve(Number(port));
        });
      }
      child.once("close", () => reject(new Error(`the runtime did not start:\n${runtime.log}`)));
    });
    return runtime;
  } catch (error) {
    cleanUp();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function quoted(text) {
  return JSON.stringify(text);
}
