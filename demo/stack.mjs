// The whole demo: provider, app, and Envoy with Stepgate between the browser and the app.

import { access } from "node:fs/promises";
import { resolve } from "node:path";

import { startApp } from "./app.mjs";
import { DemoError } from "./demo-error.mjs";
import { asItIs, startEnvoy, withAddresses } from "./envoy.mjs";
import { DEFAULT_PORTS, takenPorts } from "./ports.mjs";
import { startProvider } from "./provider.mjs";

const DEFAULT_WASM = "dist/stepgate.wasm";

/** Starts everything or, where something fails or `signal` aborts, leaves nothing running and throws. */
export async function startDemo({
  envoy,
  wasm = DEFAULT_WASM,
  ports = DEFAULT_PORTS,
  signal,
  onCodeWanted,
  onRequest,
  onAccess,
}) {
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
    const provider = await startProvider({ port: ports.provider, redirectUri: `${publicUrl}/callback`, onCodeWanted });
    running.push({ stop: provider.close });
    const app = await startApp({ port: ports.app, issuer: provider.issuer, publicUrl, onRequest });
    running.push({ stop: app.close });
    signal?.throwIfAborted();

    const usual = wasm === DEFAULT_WASM && Object.entries(DEFAULT_PORTS).every(([name, port]) => ports[name] === port);
    const proxy = await startEnvoy({
      binary: envoy,
      configuration: usual
        ? asItIs
        : withAddresses({ ports, issuer: provider.issuer, publicUrl, wasm: resolve(wasm) }),
      adminPort: ports.admin,
      signal,
      onAccess,
    });
    running.push(proxy);
    return { publicUrl, adminUrl: `http://127.0.0.1:${ports.admin}`, provider, envoyExited: proxy.exited, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
