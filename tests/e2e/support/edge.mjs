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

/** So new that request signals and all else that runtimes offer today are there. */
const COMPATIBILITY_DATE = "2026-11-01";

const require = createRequire(import.meta.url);

/** The binaries come with packages for one platform each, so that no script of theirs has to run. */
const BINARIES = {
  workerd: () => require.resolve("@cloudflare/workerd-linux-64/bin/workerd"),
  deno: () => path.join(path.dirname(require.resolve("@deno/linux-x64-glibc/package.json")), "deno"),
};

/**
 * Starts workerd with one worker, `main`, which finds the package under `stepgate/`.
 *
 * @param {object} options
 * @param {Record<string, string | object>} options.modules  by name: the path of a file, or text, or an object for JSON;
 *   the first one is the worker
 * @param {Record<string, string>} [options.bindings]        texts
 * @param {string[]} [options.flags]                         compatibility flags
 */
export async function startWorkerd({ modules, bindings = {}, flags = [] }) {
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
    listed.push(`(name = "stepgate/${file}", ${file.endsWith(".wasm") ? "wasm" : "esModule"} = embed "stepgate_${file}")`);
  }
  const texts = Object.entries(bindings).map(([name, text]) => `(name = ${quoted(name)}, text = ${quoted(text)})`);
  writeFileSync(path.join(directory, "config.capnp"), `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "internet", network = (allow = ["local"])),
  ],
  sockets = [(name = "main", address = "127.0.0.1:0", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [${listed.join(",\n    ")}],
  bindings = [${texts.join(", ")}],
  compatibilityDate = "${COMPATIBILITY_DATE}",
  compatibilityFlags = [${flags.map(quoted).join(", ")}],
);
`);
  const child = spawn(BINARIES.workerd(), ["serve", "--control-fd=3", path.join(directory, "config.capnp")], {
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  return started(child, child.stdio[3], /"socket":"main","port":(\d+)/, () => rmSync(directory, { recursive: true }));
}

/** Starts a program in Deno, which prints `port …`. It may read what it needs, and use loopback. */
export async function startDeno(file, { args = [], env = {} } = {}) {
  const permissions = ["--allow-net=127.0.0.1,localhost", "--allow-read", "--allow-env"];
  const child = spawn(BINARIES.deno(), ["run", "--no-config", "--no-lock", "--quiet", ...permissions, file, ...args], {
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", HOME: process.env.HOME, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  return started(child, child.stdout, /^port (\d+)/);
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

async function started(child, stream, pattern, cleanUp = () => {}) {
  const runtime = {
    pid: child.pid,
    log: "",
    port: undefined,
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGTERM");
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
  try {
    for await (const line of createInterface({ input: stream })) {
      const [, port] = pattern.exec(line) ?? [];
      if (port === undefined) continue;
      runtime.port = Number(port);
      stream.resume();
      return runtime;
    }
    throw new Error(`the runtime did not start:\n${runtime.log}`);
  } finally {
    clearTimeout(timer);
  }
}

function quoted(text) {
  return JSON.stringify(text);
}
