// The whole demo: provider, app, and Envoy with Stepgate between the browser and the app.

import { randomBytes } from "node:crypto";
import { access } from "node:fs/promises";
import { resolve } from "node:path";

import { startApp } from "./app.mjs";
import { DemoError } from "./demo-error.mjs";
import { asItIs, startEnvoy, withAddresses } from "./envoy.mjs";
import { startApp as startAppWithOwnLogin } from "./own-login/app.mjs";
import { DEFAULT_PORTS, takenPorts } from "./ports.mjs";
import { startProvider } from "./provider.mjs";

const DEFAULT_WASM = "dist/stepgate.wasm";

const APPS = {
  portal: { start: startApp, config: "envoy/envoy.yaml" },
  "own-login": { start: startAppWithOwnLogin, config: "envoy/envoy-own-login.yaml" },
};

/** Starts everything or, where something fails or `signal` aborts, leaves nothing running and throws. */
export async function startDemo({
  app: appName = "portal",
  envoy,
  wasm = DEFAULT_WASM,
  ports = DEFAULT_PORTS,
  adjustGate,
  signal,
  onCodeWanted,
  onRequest,
  onAccess,
  onLog,
}) {
  if (!Object.hasOwn(APPS, appName)) throw new DemoError(`APP must be one of: ${Object.keys(APPS).join(", ")}.`);
  const { start, config } = APPS[appName];
  if (!envoy) throw new DemoError("ENVOY must be the path of an Envoy binary. `make demo` installs one and sets it.");
  await access(wasm).catch(() => { throw new DemoError(`${wasm} is missing. \`make build\` makes it.`); });
  const taken = await takenPorts(ports);
  if (taken.length) throw new DemoError(taken.join("\n"));

  const running = [];
  async function stop() {
    while (running.length) await running.pop().stop();
  }

  try {
    const publicUrl = `http://127.0.0.1:${ports.portal}`;
    const adminUrl = `http://127.0.0.1:${ports.admin}`;
    const countersUrl = `${adminUrl}/stats/prometheus?filter=stepgate_rules`;
    const clientSecret = randomBytes(32).toString("base64url");
    const provider = await startProvider({
      port: ports.provider, clientSecret, redirectUri: `${publicUrl}/callback`, onCodeWanted,
    });
    running.push({ stop: provider.close });
    const app = await start({ port: ports.app, issuer: provider.issuer, clientSecret, publicUrl, countersUrl, onRequest });
    running.push({ stop: app.close });
    signal?.throwIfAborted();

    const usual = resolve(wasm) === resolve(DEFAULT_WASM) && !adjustGate
      && Object.entries(DEFAULT_PORTS).every(([name, port]) => ports[name] === port);
    const proxy = await startEnvoy({
      binary: envoy,
      configuration: usual
        ? asItIs(config)
        : withAddresses(config, { ports, issuer: provider.issuer, publicUrl, wasm: resolve(wasm), adjustGate }),
      environment: { STEPGATE_CLIENT_SECRET: clientSecret, STEPGATE_KEY: randomBytes(32).toString("base64") },
      adminPort: ports.admin,
      signal,
      onAccess,
      onLog,
    });
    running.push(proxy);
    return { publicUrl, adminUrl, countersUrl, provider, envoyExited: proxy.exited, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
