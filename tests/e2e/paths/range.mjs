// Real Envoy in front of all origins, with the gate and without it, by each way in which Envoy can normalise paths.

import { startEnvoy } from "../support/envoy.mjs";
import { inlineGate } from "../support/gate.mjs";
import { connect, connectH2 } from "../support/http.mjs";
import { ORIGINS, SECRET, startOrigins } from "./origins.mjs";
import { targets } from "./targets.mjs";

/** What Envoy does to a path before the gate sees it. */
export const NORMALISATIONS = {
  none: { normalize_path: false, merge_slashes: false, path_with_escaped_slashes_action: "KEEP_UNCHANGED" },
  unescape: { normalize_path: false, merge_slashes: false, path_with_escaped_slashes_action: "UNESCAPE_AND_FORWARD" },
  keep: { normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: "KEEP_UNCHANGED" },
  reject: { normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: "REJECT_REQUEST" },
  redirect: { normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: "UNESCAPE_AND_REDIRECT" },
  forward: { normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: "UNESCAPE_AND_FORWARD" },
};

/** What protects the origins' secret. */
export const RULES = [{ paths: ["/salary/**"], except: ["/salary/help"] }, { paths: ["/users/*/salary"] }];

const ORIGIN_HEADER = "x-origin";
const CONCURRENT = 16;

/** Starts Envoy and the origins. */
export async function startRange() {
  const origins = await startOrigins();
  try {
    const envoy = await startEnvoy({ listeners: listeners(), clusters: clusters(origins) });
    return new Range(origins, envoy);
  } catch (error) {
    await origins.stop();
    throw error;
  }
}

class Range {
  #idle = new Map();

  constructor(origins, envoy) {
    this.origins = origins;
    this.envoy = envoy;
  }

  /**
   * Sends a request on its way and tells whether the secret comes back.
   *
   * @param {{ origin: string, normalisation: string, gated: boolean }} way
   * @param {{ protocol?: string, method?: string, path: string, headers?: object }} target  see targets.mjs
   */
  async reveals({ origin, normalisation, gated }, { protocol = "h1", method = "GET", path, headers = {} }) {
    const listener = gated ? gateOf(normalisation, origin) : `${normalisation}-open`;
    const all = { ...headers, [ORIGIN_HEADER]: origin };
    const request = { method, path, headers: protocol === "h2" ? all : Object.entries(all) };
    const key = `${listener} ${protocol}`;
    const idle = this.#idle.get(key)?.pop();
    // Envoy may just have closed a connection for the request before: then it has to be another one.
    const answer = (idle && await this.#ask(idle, key, request)) ?? await this.#ask(
      await (protocol === "h2" ? connectH2 : connect)(this.envoy.port(listener)), key, request,
    );
    return answer !== undefined && (answer.text() + JSON.stringify(answer.headers)).includes(SECRET);
  }

  /** A sample of targets by each way in which Envoy can normalise paths; see `sample`. */
  async sample(seed, count) {
    return sample(seed, count, Object.keys(NORMALISATIONS), ({ way: normalisation, ...shot }, target) =>
      this.reveals({ normalisation, ...shot }, target));
  }

  async stop() {
    for (const connection of [...this.#idle.values()].flat()) connection.close();
    await this.envoy.stop();
    await this.origins.stop();
  }

  /** The answer; undefined when the connection ends instead. */
  async #ask(connection, key, request) {
    try {
      const answer = await connection.request(request);
      const isSpent = request.method === "CONNECT" || answer.header("connection") === "close";
      if (isSpent) connection.close();
      else this.#idle.set(key, [...(this.#idle.get(key) ?? []), connection]);
      return answer;
    } catch {
      connection.close();
      return undefined;
    }
  }
}

/**
 * Sends targets of a seed, each by one way to every origin, with the gate and without it.
 *
 * Gives `tried`, by way and origin: how many requests, and how many of them reach the secret where there is no gate;
 * `bypasses`, those that reach it in spite of the gate; and a summary.
 *
 * @param {number} seed
 * @param {number} count
 * @param {string[]} ways
 * @param {(shot: { way: string, origin: string, gated: boolean }, target: object) => Promise<boolean>} reveals
 * @returns {Promise<{ tried: Map<string, { requests: number, open: number }>, bypasses: string[], summary: string }>}
 */
export async function sample(seed, count, ways, reveals) {
  const endless = targets(seed);
  const origins = Object.keys(ORIGINS);
  const tried = new Map(ways.flatMap((way) => origins.map((origin) => [`${way} ${origin}`, { requests: 0, open: 0 }])));
  const bypasses = [];
  let next = 0;
  const shoot = async () => {
    while (next < count) {
      const { value: target } = endless.next();
      const way = ways[next % ways.length];
      next += 1;
      for (const origin of origins) {
        const figures = tried.get(`${way} ${origin}`);
        figures.requests += 1;
        if (await reveals({ way, origin, gated: false }, target)) figures.open += 1;
        if (await reveals({ way, origin, gated: true }, target)) {
          bypasses.push(`seed ${seed}: ${way} ${origin} ${JSON.stringify(target)}`);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT }, shoot));
  const total = (figure) => [...tried.values()].reduce((sum, figures) => sum + figures[figure], 0);
  const summary = `seed ${seed}, ${total("requests")} requests without MFA: without the gate ${total("open")} reach the secret, ` +
    `with it ${bypasses.length}`;
  return { tried, bypasses, summary };
}

function gateOf(normalisation, origin) {
  return `${normalisation}-${ORIGINS[origin].ignoresCase ? "folding" : "gate"}`;
}

function listeners() {
  const gates = {
    open: undefined,
    gate: inlineGate({ rules: RULES }),
    folding: inlineGate({ rules: RULES, case_insensitive_paths: true }),
  };
  return Object.entries(NORMALISATIONS).flatMap(([normalisation, options]) =>
    Object.entries(gates).map(([name, config]) => ({
      name: `${normalisation}-${name}`,
      config,
      extraHcm: {
        ...options,
        route_config: { virtual_hosts: [{ name: "all", domains: ["*"], routes: routes() }] },
        upgrade_configs: [{ upgrade_type: "websocket" }, { upgrade_type: "CONNECT" }],
        // A bad request does not end the connection that others are using.
        http2_protocol_options: { allow_connect: true, override_stream_error_on_invalid_http_message: true },
        access_log: [],
      },
    })),
  );
}

function routes() {
  return Object.keys(ORIGINS).flatMap((cluster) => {
    const headers = [{ name: ORIGIN_HEADER, string_match: { exact: cluster } }];
    const matches = [{ prefix: "", headers }, { connect_matcher: {}, headers }];
    return matches.map((match) => ({ match, route: { cluster } }));
  });
}

function clusters(origins) {
  const cluster = (name) => {
    const address = { pipe: { path: origins.socket(name) } };
    return {
      type: "STATIC",
      load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] },
    };
  };
  return Object.fromEntries(Object.keys(ORIGINS).map((name) => [name, cluster(name)]));
}
