// What the tests of both demos share: ports, the browser, a run of demo/run.mjs.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { PORTS, isFree } from "../../demo/ports.mjs";
import { Browser } from "./demo-client.mjs";
import { eventually } from "./support/wait.mjs";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const PATIENCE = 30_000;

export const ada = { username: "ada", password: "lovelace" };

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const CHROMIUM_ARGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

export function launchChromium() {
  return chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_ARGS });
}

/** For `skip`. */
export function chromiumMissing() {
  return existsSync(CHROMIUM) || process.env.CI === "true" ? false : `${CHROMIUM} is not there; set CHROMIUM to a Chromium`;
}

/** Violations of a page's own policy and errors of its script, as they come; `watched` is a page or a context. */
export function complaintsOf(watched) {
  const complaints = [];
  watched.on("console", (message) => /Content Security Policy/.test(message.text()) && complaints.push(message.text()));
  watched.on("pageerror", (error) => complaints.push(error.message));
  watched.on("weberror", (error) => complaints.push(error.error().message));
  return complaints;
}

/** Runs demo/run.mjs; whatever happens, it has ended when the test has. */
export function runDemo(t, { app = "portal", ports, environment = {} }) {
  const chosen = Object.entries(PORTS).map(([name, { variable }]) => [variable, String(ports[name])]);
  const child = spawn(process.execPath, ["demo/run.mjs", app], {
    cwd: ROOT,
    env: { ...process.env, ...Object.fromEntries(chosen), ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exitCode = once(child, "close").then(([code]) => code);
  t.after(async () => {
    child.kill("SIGTERM");
    await exitCode;
  });

  const runner = {
    output: "",
    exitCode,
    async prints(pattern) {
      await eventually(PATIENCE, `it prints ${pattern}`, () => pattern.test(runner.output) || child.exitCode !== null);
      const match = runner.output.match(pattern);
      assert.ok(match, `it prints ${pattern}; it printed:\n${runner.output}`);
      return match;
    },
    endsOn(signal) {
      child.kill(signal);
      return exitCode;
    },
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => { runner.output += text; });
  }
  return runner;
}

export async function demoPorts() {
  const names = Object.keys(PORTS);
  const ports = await freePorts(names.length);
  return Object.fromEntries(names.map((name, i) => [name, ports[i]]));
}

/** Ports that were free a moment ago: Envoy's redirect_uri must name its own port before it runs. */
export async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    return server;
  }));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => once(server.close(), "close")));
  return ports;
}

export async function assertFree(ports) {
  for (const [name, port] of Object.entries(ports)) {
    if (port) assert.ok(await isFree(port), `the port of ${name} is free`);
  }
}

export const alertOf = (page) => page.text.match(/role="alert"[^>]*>(.*?)<\/p>/)?.[1];

/** Six digits that are not right, now or a period away. */
export function wrongCode(provider) {
  return String((Number(provider.totp()) + 123_456) % 1_000_000).padStart(6, "0");
}

/** Runs a demo, does what it tells one to try, and stops it: the same for both apps. */
export async function takeTheTour(t, { app } = {}) {
  const ports = await demoPorts();
  const runner = runDemo(t, { app, ports });
  await runner.prints(/Ctrl-C stops everything/);
  const portal = `http://127.0.0.1:${ports.portal}`;
  for (const hint of [`${portal}/`, `http://localhost:${ports.provider}`, "lovelace", `curl -i ${portal}/salary`]) {
    assert.ok(runner.output.includes(hint), `it prints \`${hint}\``);
  }

  const browser = new Browser();
  await browser.submit(await browser.open(`${portal}/news`), "/password", ada);
  const page = await browser.open(`${portal}/salary`);
  const [, code] = await runner.prints(/one-time code for ada: (\d{6})/);
  assert.match((await browser.submit(page, "/code", { code })).text, /<h1>Salary<\/h1>/);
  await runner.prints(/GET \/salary {2}302 {2}.*amr_missing/);
  await runner.prints(/GET \/salary {2}200 {2}.*satisfied/);

  assert.equal(await runner.endsOn("SIGINT"), 0);
  assert.ok(!runner.output.includes("eyJ"), "no token is printed");
  await assertFree(ports);
}
