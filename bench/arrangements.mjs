// What is measured: filters in front of a route that Envoy answers itself, so that nothing but the filters differs. A peer has
// the configuration that serves it best; `checks` is what each must answer before it is timed.

import { fileURLToPath } from "node:url";

import { extension, stepgateModule } from "../tests/e2e/support/envoy.mjs";
import { CLIENT_ID, ISSUER, keySet } from "./tokens.mjs";

const AUTHORIZE = `${ISSUER}authorize`;
const MULTI_FACTOR = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";
const REDIRECT_URI = "https://app.example.com/callback";

export const PROTECTED = "/salary/2026/11";
export const OPEN = "/news/2026/11";

const [NOOP, CALLS] = ["noop", "calls"].map((name) => fileURLToPath(new URL(`../target/wasm32-wasip1/release/stepgate_bench_${name}.wasm`, import.meta.url)));

// Answers by what the request brings; `open` is a path without protection and without a token.
const PASSES = { open: 200, none: 200, password: 200, mfa: 200, expired: 200, forged: 200 };
const REFUSES = { open: 200, none: 401, password: 403, mfa: 200, expired: 401, forged: 401 };
const REDIRECTS = { open: 200, none: 302, password: 302, mfa: 200, expired: 302, forged: 302 };

/** The filters of a listener, and what they must answer. */
export const LISTENERS = {
  none: { filters: [], checks: PASSES },
  noop: { filters: [noop()], checks: PASSES },
  calls: { filters: [wasm("calls", CALLS, "")], checks: PASSES },
  jwt: { filters: [jwtAuthn(), rbac()], checks: REFUSES },
  jwt_cache: { filters: [jwtAuthn({ cache: true }), rbac()], checks: REFUSES },
  jwt_lua: { filters: [jwtAuthn({ cache: true, optional: true }), lua()], checks: REDIRECTS },
  ext_authz: { filters: [extAuthz()], checks: PASSES },
  gate: { filters: [gate("gate", gateConfig())], checks: REDIRECTS },
  gate_callback: { filters: [gate("gate_callback", callbackConfig())], checks: REDIRECTS },
  gate_10: { filters: [gate("gate_10", gateConfig({ rules: 10 }))], checks: REDIRECTS },
  gate_1000: { filters: [gate("gate_1000", gateConfig({ rules: 1000 }))], checks: REDIRECTS },
  gate_ES256: { filters: [gate("gate_ES256", gateConfig({ alg: "ES256" }))], checks: REDIRECTS, alg: "ES256" },
  gate_PS256: { filters: [gate("gate_PS256", gateConfig({ alg: "PS256" }))], checks: REDIRECTS, alg: "PS256" },
  gate_EdDSA: { filters: [gate("gate_EdDSA", gateConfig({ alg: "EdDSA" }))], checks: REDIRECTS, alg: "EdDSA" },
};

/**
 * What is timed: a listener in a situation. Those that are compared stand together, so that they are measured within seconds
 * of each other.
 *
 *   token     what the cookie brings: "none", "password", "mfa", or "new", a token that was not seen before
 *   status    what every answer must be
 *   hits      with `mfa` and `new`: which share of the signatures must have been found in a cache
 */
export const SITUATIONS = [
  { id: "none", title: "no filter", listener: "none", path: PROTECTED, token: "mfa", status: 200 },
  { id: "noop", title: "Wasm filter that does nothing", listener: "noop", path: PROTECTED, token: "mfa", status: 200 },
  { id: "calls", title: "Wasm filter that makes the gate's host calls, and no more", listener: "calls", path: PROTECTED, token: "mfa", status: 200 },
  { id: "gate_open", title: "gate: unprotected path", listener: "gate", path: OPEN, token: "mfa", status: 200 },
  { id: "gate_seen", title: "gate: token seen before", listener: "gate", path: PROTECTED, token: "mfa", status: 200 },
  { id: "jwt_seen", title: "jwt_authn with cache + RBAC: token seen before", listener: "jwt_cache", path: PROTECTED, token: "mfa", status: 200 },
  { id: "ext_authz", title: "ext_authz, instant authorizer", listener: "ext_authz", path: PROTECTED, token: "mfa", status: 200 },
  { id: "gate_10_seen", title: "gate, 10 rules: token seen before", listener: "gate_10", path: PROTECTED, token: "mfa", status: 200 },
  { id: "gate_1000_seen", title: "gate, 1,000 rules: token seen before", listener: "gate_1000", path: PROTECTED, token: "mfa", status: 200 },
  { id: "gate_1000_open", title: "gate, 1,000 rules: unprotected path", listener: "gate_1000", path: OPEN, token: "mfa", status: 200 },
  { id: "gate_callback_seen", title: "gate with callback: token seen before", listener: "gate_callback", path: PROTECTED, token: "mfa", status: 200 },
  { id: "gate_new", title: "gate: every token new", listener: "gate", path: PROTECTED, token: "new", status: 200 },
  { id: "jwt_new", title: "jwt_authn + RBAC: every token new", listener: "jwt", path: PROTECTED, token: "new", status: 200 },
  { id: "gate_ES256_new", title: "gate: every token new, ES256", listener: "gate_ES256", path: PROTECTED, token: "new", status: 200 },
  { id: "gate_PS256_new", title: "gate: every token new, PS256 (in the module)", listener: "gate_PS256", path: PROTECTED, token: "new", status: 200 },
  { id: "gate_EdDSA_new", title: "gate: every token new, EdDSA (in the module)", listener: "gate_EdDSA", path: PROTECTED, token: "new", status: 200 },
  { id: "gate_302", title: "gate: 302, no token", listener: "gate", path: PROTECTED, token: "none", status: 302 },
  { id: "lua_302", title: "jwt_authn + Lua: 302, no token", listener: "jwt_lua", path: PROTECTED, token: "none", status: 302 },
  { id: "gate_302_password", title: "gate: 302, token without mfa", listener: "gate", path: PROTECTED, token: "password", status: 302 },
  { id: "lua_302_password", title: "jwt_authn + Lua: 302, token without mfa", listener: "jwt_lua", path: PROTECTED, token: "password", status: 302 },
  { id: "gate_callback_302", title: "gate with callback: 302, no token", listener: "gate_callback", path: PROTECTED, token: "none", status: 302 },
];

/** What is to be reached: requests per second of `of`, as a multiple of `over`'s. */
export const TARGETS = [
  { title: "unprotected path : filter that does nothing", of: "gate_open", over: "noop", least: 0.95 },
  { title: "token seen before : jwt_authn with cache + RBAC", of: "gate_seen", over: "jwt_seen", least: 1.15 },
  { title: "token seen before : filter that does nothing", of: "gate_seen", over: "noop", least: 0.9 },
  { title: "every token new : jwt_authn + RBAC", of: "gate_new", over: "jwt_new", least: 1.15 },
  { title: "302, no token : jwt_authn + Lua", of: "gate_302", over: "lua_302", least: 1.0 },
  { title: "token seen before : ext_authz, instant", of: "gate_seen", over: "ext_authz", least: 2.7 },
  { title: "1,000 rules : 1 rule, token seen before", of: "gate_1000_seen", over: "gate_seen", least: 0.97 },
  { title: "1,000 rules : 1 rule, unprotected path", of: "gate_1000_open", over: "gate_open", least: 0.97 },
];

/** A browser's navigation. `{token}` is where the token goes, among other cookies. */
export function browserHeaders(token) {
  const cookies = [
    "_ga=GA1.1.1204487325.1761912345",
    "theme=dark",
    ...(token === undefined ? [] : [`id_token=${token}`]),
    "session=8f14e45fceea167a5a36dedd4bea2543",
    "csrftoken=Qm9vdHN0cmFwLXN0ZXBnYXRlLTIwMjY",
    "_ga_4XK2L9P1QZ=GS1.1.1763971200.12.1.1763972345.60.0.0",
  ];
  return {
    "host": "app.example.com",
    "connection": "keep-alive",
    "cache-control": "max-age=0",
    "sec-ch-ua": '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "upgrade-insecure-requests": "1",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "sec-fetch-site": "same-origin",
    "sec-fetch-mode": "navigate",
    "sec-fetch-user": "?1",
    "sec-fetch-dest": "document",
    "referer": "https://app.example.com/news",
    "accept-encoding": "gzip, deflate, br, zstd",
    "accept-language": "en-GB,en;q=0.9,de;q=0.8",
    "cookie": cookies.join("; "),
  };
}

/** The gate's filter; `id` keeps its VM apart from that of other configurations. */
export function gate(id, config) {
  return wasm(`stepgate_${id}`, stepgateModule(), JSON.stringify(config));
}

export function noop() {
  return wasm("noop", NOOP, "");
}

/** A gate with its keys inline: `rules` of them, of which one is for the protected path. */
export function gateConfig({ alg = "RS256", rules = 1, provider, ...sections } = {}) {
  const others = Array.from({ length: rules - 1 }, (_, at) => ({ paths: [`/area-${at}/**`], except: [`/area-${at}/help`] }));
  return {
    provider: { issuer: ISSUER, authorization_endpoint: AUTHORIZE, jwks: keySet(), ...provider },
    client: { id: CLIENT_ID, redirect_uri: REDIRECT_URI, secret: "a client secret of more than 32 bytes" },
    token: { algorithms: [alg] },
    rules: [...others, { paths: ["/salary/**"] }],
    ...sections,
  };
}

function callbackConfig() {
  return gateConfig({
    provider: { token_endpoint: `${ISSUER}token`, cluster: "idp" },
    callback: { keys: [Buffer.alloc(32, 7).toString("base64")] },
    forward: { headers: { "x-user-id": "sub" } },
  });
}

function wasm(vmId, filename, configuration) {
  return extension("filters.http.wasm.v3.Wasm", vmId, {
    config: {
      name: vmId,
      configuration: { "@type": "type.googleapis.com/google.protobuf.StringValue", value: configuration },
      vm_config: { vm_id: vmId, runtime: "envoy.wasm.runtime.v8", code: { local: { filename } } },
    },
  });
}

function jwtAuthn({ cache = false, optional = false } = {}) {
  const provider = { provider_name: "idp" };
  return extension("filters.http.jwt_authn.v3.JwtAuthentication", "envoy.filters.http.jwt_authn", {
    providers: {
      idp: {
        issuer: ISSUER,
        audiences: [CLIENT_ID],
        from_cookies: ["id_token"],
        forward: true,
        payload_in_metadata: "id_token",
        clock_skew_seconds: 60,
        local_jwks: { inline_string: JSON.stringify(keySet()) },
        ...(cache && { jwt_cache_config: { jwt_cache_size: 4096 } }),
      },
    },
    rules: [{
      match: { prefix: "/salary" },
      requires: optional ? { requires_any: { requirements: [provider, { allow_missing_or_failed: {} }] } } : provider,
    }],
  });
}

/** One policy, for what is refused: the fewest matchers that give the answer. */
function rbac() {
  return extension("filters.http.rbac.v3.RBAC", "envoy.filters.http.rbac", {
    rules: {
      action: "DENY",
      policies: {
        mfa: {
          permissions: [{ url_path: { path: { prefix: "/salary" } } }],
          principals: [{
            not_id: {
              sourced_metadata: {
                metadata_matcher: {
                  filter: "envoy.filters.http.jwt_authn",
                  path: [{ key: "id_token" }, { key: "amr" }],
                  value: { list_match: { one_of: { string_match: { exact: "mfa" } } } },
                },
              },
            },
          }],
        },
      },
    },
  });
}

/** Less than the gate's redirect does: no nonce, since Lua in Envoy has no source of randomness, and no count of attempts. */
function lua() {
  const query = new URLSearchParams({
    response_type: "code", client_id: CLIENT_ID, redirect_uri: REDIRECT_URI, scope: "openid", acr_values: MULTI_FACTOR,
  });
  return extension("filters.http.lua.v3.Lua", "envoy.filters.http.lua", {
    default_source_code: {
      inline_string: `
        local authorize = "${AUTHORIZE}?${query}&state="
        function envoy_on_request(handle)
          local path = handle:headers():get(":path")
          if path:sub(1, 7) ~= "/salary" then return end
          local metadata = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")
          local token = metadata and metadata.id_token
          if token and type(token.amr) == "table" then
            for _, method in ipairs(token.amr) do
              if method == "mfa" then return end
            end
          end
          local state = path:gsub("[^%w%-_.~]", function(c) return string.format("%%%02X", c:byte()) end)
          handle:respond({ [":status"] = "302", ["location"] = authorize .. state, ["cache-control"] = "no-store" }, "")
        end
      `,
    },
  });
}

/** Over HTTP, with nothing but the cookie: fewer bytes and less work than a gRPC CheckRequest with every header in it. */
function extAuthz() {
  return extension("filters.http.ext_authz.v3.ExtAuthz", "envoy.filters.http.ext_authz", {
    http_service: { server_uri: { uri: "http://authorizer", cluster: "authorizer", timeout: "5s" } },
    allowed_headers: { patterns: [{ exact: "cookie" }] },
  });
}

