// A real identity provider, node-oidc-provider, that asks nobody for anything: a test says who logs in, and what their ID
// Tokens say. The second factor is there as soon as a client asks for it. What clients have sent is kept.

import { once } from "node:events";
import { createServer } from "node:http";

import { Provider, interactionPolicy } from "oidc-provider";
import { createMemoryAdapter } from "oidc-provider/lib/adapters/memory_adapter.js";

import { MULTI_FACTOR, REDIRECT_URI } from "./gate.mjs";
import { secret, sentSecrets } from "./secrets.mjs";
import { signingKey } from "./tokens.mjs";

/**
 * Starts it on a port that the kernel picks.
 *
 * @param {object} options
 * @param {object[]} options.clients  client metadata (OpenID Connect Dynamic Client Registration section 2)
 * @param {string[]} [options.redirectUris]
 * @param {boolean} [options.pushed]  whether it takes pushed authorization requests
 */
export async function startOidc({ clients, redirectUris = [REDIRECT_URI], pushed = true }) {
  let handle;
  const server = createServer({ keepAliveTimeout: 0 }, (request, response) => handle(request, response));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address();

  const oidc = {
    port,
    issuer: `http://localhost:${port}`,
    /** Who logs in next, and further claims of theirs. */
    person: { sub: "ada" },
    /** `{ route, params, authorization }` of each request, by the provider's own names for its routes. */
    requests: [],
    at: (route) => oidc.requests.filter((request) => request.route === route),
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };

  const provider = new Provider(oidc.issuer, {
    adapter: createMemoryAdapter(),
    clients: clients.map((client) => ({
      redirect_uris: redirectUris, post_logout_redirect_uris: redirectUris.map((uri) => new URL("/", uri).href), ...client,
    })),
    jwks: { keys: [{ ...signingKey().jwk, ...signingKey().privateKey.export({ format: "jwk" }) }] },
    cookies: { keys: ["of no importance"] },
    acrValues: [MULTI_FACTOR],
    claims: { openid: ["sub", "acr", "amr", "auth_time", "preferred_username", "groups"] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    interactions: { policy: policy(), url: (ctx, { uid }) => `/interaction/${uid}` },
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ ...oidc.person, sub: id }) }),
    loadExistingGrant: grantWithoutConsent,
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 3600, Interaction: 600, Session: 3600 },
    features: {
      devInteractions: { enabled: false },
      pushedAuthorizationRequests: { enabled: pushed },
      rpInitiatedLogout: { enabled: true, logoutSource: (ctx, form) => { ctx.body = form; } },
    },
  });
  provider.on("server_error", (ctx, error) => console.error("identity provider:", error));
  provider.use(async (ctx, next) => {
    if (ctx.path.startsWith("/interaction/")) {
      const { params } = await provider.interactionDetails(ctx.req, ctx.res);
      return ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, { login: login(params, oidc.person) }));
    }
    await next();
    if (!ctx.oidc?.route) return;
    const params = { ...ctx.query, ...ctx.oidc.body };
    sentSecrets(params, ctx.get("authorization"));
    ["access_token", "id_token"].forEach((kind) => secret(kind, ctx.body?.[kind]));
    oidc.requests.push({ route: ctx.oidc.route, params, authorization: ctx.get("authorization") });
  });
  handle = provider.callback();
  return oidc;
}

function login({ acr_values: asked }, { sub }) {
  if (asked !== MULTI_FACTOR) return { accountId: sub, amr: ["pwd"] };
  return { accountId: sub, acr: MULTI_FACTOR, amr: ["pwd", "otp", "mfa"] };
}

/** The library's own policy ignores acr_values. */
function policy() {
  const prompts = interactionPolicy.base();
  prompts.get("login").checks.add(new interactionPolicy.Check(
    "mfa",
    "a second factor is required",
    ({ oidc }) => oidc.params.acr_values === MULTI_FACTOR && !oidc.session.amr?.includes("mfa"),
  ));
  return prompts;
}

async function grantWithoutConsent({ oidc }) {
  const { Grant } = oidc.provider;
  const grant = new Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
  grant.addOIDCScope("openid");
  await grant.save();
  return grant;
}
