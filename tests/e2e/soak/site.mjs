// A site behind the gate, for the soak: real Envoy with two workers, its gate configured as an operator would do it, a
// provider that can fail in any way, and an app that watches who reaches it.

import { randomBytes } from "node:crypto";
import http from "node:http";

import { startEnvoy } from "../support/envoy.mjs";
import { discoveringGate } from "../support/gate.mjs";
import { KEYS, METADATA, startProvider } from "../support/provider.mjs";
import { signingKey } from "../support/tokens.mjs";
import { COOKIE, MAY_SEE, USER } from "./crowd.mjs";

/** How long connections of replaced listeners may go on: longer than any request waits, and than a new module takes to compile. */
const DRAIN_SECONDS = 10;

const SECRETS = {
  STEPGATE_CLIENT_SECRET: randomBytes(24).toString("base64"),
  STEPGATE_KEY: randomBytes(32).toString("base64"),
};

/** Starts all of it, the provider refusing connections. `settings` are those of `provider` in the gate's configuration. */
export async function startSite(settings) {
  const provider = await startProvider();
  const app = await startApp();
  const site = new Site(settings, provider, app);
  provider.keys = publicKeys(site.keys);
  await provider.down();
  try {
    site.envoy = await startEnvoy({
      listeners: site.listeners(),
      clusters: { app: app.port, idp: provider.port },
      drainSeconds: DRAIN_SECONDS,
    });
    return site;
  } catch (error) {
    await site.stop();
    throw error;
  }
}

class Site {
  #settings;
  #generation = 0;

  /** What tokens are signed with now. */
  keys = this.newKeys();

  /** What a reload can change. */
  changes = { rules: [], vmId: "stepgate", module: undefined, leeway: "60s" };

  constructor(settings, provider, app) {
    this.#settings = settings;
    this.provider = provider;
    this.app = app;
  }

  get issuer() {
    return this.provider.issuer;
  }

  get port() {
    return this.envoy.port("gate");
  }

  /** How many documents were asked for so far. */
  get fetches() {
    return this.provider.count(KEYS) + this.provider.count(METADATA);
  }

  /** New keys by algorithm. Nobody uses or publishes them yet. */
  newKeys() {
    this.#generation += 1;
    const algorithms = ["ES256", "RS256"];
    return Object.fromEntries(algorithms.map((alg) => [alg, signingKey(alg, `soak-${this.#generation}`)]));
  }

  /** Takes another configuration, with the changes so far and these. */
  async reload(changes) {
    Object.assign(this.changes, changes);
    await this.envoy.reload(this.listeners());
  }

  /** One listener as Envoy has it by default, and one for requests that it would refuse; the gate is the same. */
  listeners() {
    const { rules, vmId, module, leeway } = this.changes;
    const config = discoveringGate(this.provider, {
      provider: this.#settings,
      client: { secret: { env: "STEPGATE_CLIENT_SECRET" } },
      token: { cookie: COOKIE, algorithms: ["ES256", "RS256"], leeway },
      callback: { keys: [{ env: "STEPGATE_KEY" }] },
      forward: { headers: { [USER]: "sub" } },
      rules: [{ paths: ["/**"], except: ["/public"], require: {} }, { paths: ["/salary/**"] }, ...rules],
    });
    const gate = { config, vmId, module, env: SECRETS, failurePolicy: "FAIL_RELOAD", extraHcm: { access_log: [] } };
    return [{ name: "gate", ...gate }, { name: "wide", ...gate, maxHeaders: 5_000 }];
  }

  async stop() {
    await this.envoy?.stop();
    await this.provider.stop();
    await this.app.stop();
  }
}

/** What a provider publishes of keys. */
export function publicKeys(keys) {
  return Object.values(keys).map(({ jwk }) => jwk);
}

async function startApp() {
  const app = new App();
  await app.listen();
  return app;
}

/** It tells who the gate says the user is, and remembers who should never have come. */
class App {
  // A connection that the app closes just as Envoy uses it again is a 503: it never does.
  #server = http.createServer(
    { keepAliveTimeout: 0, maxHeaderSize: 16 * 1024 * 1024 },
    (request, response) => this.#answer(request, response),
  );

  count = 0;
  intruders = [];

  async listen() {
    this.#server.maxHeadersCount = 0;
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.port = this.#server.address().port;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(request, response) {
    this.count += 1;
    const users = request.headersDistinct[USER] ?? [];
    const isProtected = request.url.startsWith("/salary/");
    if (isProtected && !(users.length === 1 && users[0].startsWith(MAY_SEE))) {
      this.intruders.push(`${request.method} ${request.url.slice(0, 100)} by ${users.join()}`);
    }
    request.resume();
    response.on("error", () => {});
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ app: true, path: request.url, users }));
  }
}
