// The demo's identity provider: node-oidc-provider with a password, and a one-time code when a client asks for one.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

import { calculateJwkThumbprint, exportJWK, generateKeyPair } from "jose";
import { Provider, interactionPolicy } from "oidc-provider";
import { createMemoryAdapter } from "oidc-provider/lib/adapters/memory_adapter.js";
import { Secret, TOTP } from "otpauth";

import { pageHeaders } from "./html.mjs";
import { MULTI_FACTOR, asksForSecondFactor, interactions } from "./interaction.mjs";
import { messagePage, signOutPage } from "./provider-pages.mjs";

export const DEMO_USER = { username: "ada", password: "lovelace", name: "Ada Lovelace" };

/**
 * Listens on 127.0.0.1 and calls itself `host`. `onCodeWanted({ user, code, remaining })` is told each time
 * the provider starts to wait for a one-time code.
 */
export async function startProvider({
  host = "localhost",
  port = 9400,
  clientId = "stepgate-demo",
  clientSecret = "stepgate-demo-secret",
  clientName = "Acme Portal",
  redirectUri = "http://127.0.0.1:10000/callback",
  idTokenSeconds = 3600,
  users = [DEMO_USER],
  onCodeWanted = () => {},
} = {}) {
  const accounts = new Map(users.map((user) => [user.username, { ...user, totp: newTotp(user.username) }]));
  const requests = { discovery: 0, jwks: 0, authorization: 0, token: 0 };
  const { origin } = new URL(redirectUri);
  const client = { name: clientName, url: `${origin}/` };
  const headers = pageHeaders({ formTargets: [origin] });
  const keys = [await newKey()];

  let handle;
  const server = createServer({ keepAliveTimeout: 0 }, (request, response) => handle(request, response));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const issuer = `http://${host}:${server.address().port}`;

  const configuration = {
    adapter: createMemoryAdapter(),
    cookies: { keys: [randomBytes(32).toString("base64url")] },
    clients: [{
      client_id: clientId,
      client_secret: clientSecret,
      client_name: clientName,
      redirect_uris: [redirectUri],
      post_logout_redirect_uris: [client.url],
      token_endpoint_auth_method: "client_secret_basic",
    }],
    acrValues: [MULTI_FACTOR],
    claims: { openid: ["sub", "acr", "amr", "auth_time"] },
    clientBasedCORS: () => false,
    pkce: { required: () => false },
    interactions: { policy: policy(), url: (ctx, { uid }) => `/interaction/${uid}` },
    findAccount: (ctx, id) => accounts.has(id) && { accountId: id, claims: () => ({ sub: id }) },
    loadExistingGrant: grantWithoutConsent,
    ttl: {
      AccessToken: 600, AuthorizationCode: 60, Grant: 86400, IdToken: idTokenSeconds, Interaction: 600, Session: 86400,
    },
    features: {
      devInteractions: { enabled: false },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => respond(ctx, 200, signOutPage({ form })),
        postLogoutSuccessSource: (ctx) => respond(ctx, 200, messagePage({ title: "Signed out", client })),
      },
    },
    renderError: (ctx, { error, error_description: text = error }) => (
      respond(ctx, ctx.status, messagePage({ title: "This does not work", text, client }))
    ),
  };

  /** Tokens are signed with the first key; those after it still verify. */
  function serve() {
    const provider = new Provider(issuer, { ...configuration, jwks: { keys } });
    provider.on("server_error", (ctx, error) => console.error("identity provider:", error));
    provider.use(async (ctx, next) => {
      await next();
      if (ctx.oidc?.route in requests) requests[ctx.oidc.route] += 1;
    });
    provider.use(interactions({ provider, accounts, client, respond, onCodeWanted }));
    handle = provider.callback();
  }

  function respond(ctx, status, page) {
    ctx.status = status;
    ctx.set(headers);
    ctx.body = page;
  }

  serve();
  return {
    issuer,
    port: server.address().port,
    requests,
    totp: (username = users[0].username) => accounts.get(username).totp.generate(),
    async rotateKeys() {
      keys.unshift(await newKey());
      serve();
    },
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function newTotp(label) {
  return new TOTP({ issuer: "Acme ID", label, secret: new Secret({ size: 20 }) });
}

async function newKey() {
  const { privateKey } = await generateKeyPair("RS256", { modulusLength: 2048, extractable: true });
  const jwk = await exportJWK(privateKey);
  return { ...jwk, kid: await calculateJwkThumbprint(jwk), alg: "RS256", use: "sig" };
}

/** The library's own policy ignores acr_values: ask when they name multi-factor and the session has none. */
function policy() {
  const prompts = interactionPolicy.base();
  prompts.get("login").checks.add(new interactionPolicy.Check(
    "mfa",
    "a second factor is required",
    ({ oidc }) => asksForSecondFactor(oidc.params) && !oidc.session.amr?.includes("mfa"),
  ));
  return prompts;
}

/** The company's own app: nobody is asked whether it may know who they are. */
async function grantWithoutConsent({ oidc }) {
  const { Grant } = oidc.provider;
  const { clientId } = oidc.client;
  const known = oidc.session.grantIdFor(clientId);
  const grant = (known && await Grant.find(known)) || new Grant({ clientId, accountId: oidc.session.accountId });
  grant.addOIDCScope("openid");
  await grant.save();
  return grant;
}
