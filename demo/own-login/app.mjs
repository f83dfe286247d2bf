// The Acme portal as an app with an ordinary OpenID Connect login of its own, and no notion of a second factor.
// It owns the callback to which both its own logins and the gate's step-ups return.

import { once } from "node:events";
import { createServer } from "node:http";

import { createRemoteJWKSet, jwtVerify } from "jose";
import * as oidc from "openid-client";

import { pageHeaders } from "../html.mjs";
import { failed, noSuchPage, notLikeThis } from "../portal.mjs";
import { homePage, messagePage, newsPage, payslipsPage, salaryPage } from "./app-pages.mjs";

const TOKEN_COOKIE = "id_token";
const LOGIN_COOKIE = "login";
const LOGIN_SECONDS = 600;

const pages = new Map([
  ["/", homePage],
  ["/news", newsPage],
  ["/salary", salaryPage],
  ["/salary/2026", payslipsPage],
]);

/** Listens on 127.0.0.1. `publicUrl` is the origin that browsers see; `onRequest` is told of every request. */
export async function startApp({
  port = 8081,
  issuer = "http://localhost:9400",
  clientId = "stepgate-demo",
  clientSecret = "stepgate-demo-secret",
  publicUrl = "http://127.0.0.1:10000",
  onRequest = () => {},
} = {}) {
  const redirectUri = `${publicUrl}/callback`;
  const headers = pageHeaders({ formTargets: [new URL(issuer).origin] });
  const provider = await oidc.discovery(new URL(issuer), clientId, undefined, oidc.ClientSecretBasic(clientSecret), {
    execute: [oidc.allowInsecureRequests], // the demo's provider is on plain http, on loopback
  });
  const keys = createRemoteJWKSet(new URL(provider.serverMetadata().jwks_uri));

  // Envoy keeps connections for longer than Node does by default: one that closes as Envoy uses it again is a 503.
  const server = createServer({ keepAliveTimeout: 0 }, (request, response) => {
    onRequest({ method: request.method, path: request.url });
    handle(request, response).catch((error) => {
      console.error("portal:", error);
      if (response.headersSent) return response.destroy();
      send(response, 500, messagePage(failed));
    });
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");

  async function handle(request, response) {
    const url = new URL(publicUrl + (request.url.startsWith("/") ? request.url : "/"));
    const cookies = readCookies(request);
    if (request.method === "POST" && url.pathname === "/logout") return logout(request, response);
    if (request.method !== "GET" && request.method !== "HEAD") return send(response, 405, messagePage(notLikeThis));
    if (url.pathname === "/login") return login(response, url.searchParams);
    if (url.pathname === "/callback") return callback(response, url, cookies);

    const claims = await session(cookies);
    if (!claims) return redirect(response, loginUrl({ return_to: url.pathname + url.search }));
    const page = pages.get(url.pathname);
    if (!page) return send(response, 404, messagePage({ ...noSuchPage, claims }));
    send(response, 200, page({ claims }));
  }

  /** `acr_values` and `max_age` may come from whoever sends the browser here to log in more strongly. */
  async function login(response, query) {
    const verifier = oidc.randomPKCECodeVerifier();
    const returnTo = safePath(query.get("return_to")) ?? "/";
    const attempt = { state: oidc.randomState(), nonce: oidc.randomNonce(), verifier, returnTo };
    const parameters = {
      redirect_uri: redirectUri,
      scope: "openid",
      state: attempt.state,
      nonce: attempt.nonce,
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
    };
    for (const name of ["acr_values", "max_age"]) {
      if (query.get(name)) parameters[name] = query.get(name);
    }
    const value = Buffer.from(JSON.stringify(attempt)).toString("base64url");
    const { href } = oidc.buildAuthorizationUrl(provider, parameters);
    redirect(response, href, [cookie(LOGIN_COOKIE, value, LOGIN_SECONDS, "/callback")]);
  }

  async function callback(response, url, cookies) {
    const attempt = readAttempt(cookies);
    const state = url.searchParams.get("state") ?? "";
    const own = attempt?.state === state;
    const returnTo = own ? safePath(attempt.returnTo) ?? "/" : gatePath(state);
    const current = await session(cookies);

    if (url.searchParams.has("error")) {
      const denied = url.searchParams.get("error") === "access_denied";
      return send(response, 403, messagePage({
        title: "That page stays closed",
        text: denied
          ? "The sign-in was cancelled, or ended after too many wrong answers. Nothing has changed."
          : "Acme ID could not complete the sign-in. Nothing has changed.",
        claims: current,
        links: [["Try again", returnTo], ["Home", "/"]],
      }));
    }

    let token;
    let claims;
    try {
      token = own ? await exchangeOwnCode(url, attempt) : await exchangeGateCode(url);
      claims = await verify(token);
    } catch (error) {
      console.error("portal: sign-in failed:", error.code ?? error.name, error.error ?? error.message);
      return send(response, 400, messagePage({
        title: "That sign-in could not be completed",
        text: "It may have been used already, or it took too long.",
        claims: current,
        links: [["Try again", loginUrl({ return_to: returnTo })], ["Home", "/"]],
      }));
    }

    // A state that is not ours says nothing about who started the flow: it may be another person's code on a
    // forged link (login CSRF). So the gate's step-up may strengthen the session of the same person, and never
    // starts one. Anybody else logs in by our own flow; the provider's session makes that a bounce.
    if (!own && claims.sub !== current?.sub) {
      return redirect(response, loginUrl({ return_to: returnTo, acr_values: claims.acr }));
    }
    const maxAge = Math.max(0, claims.exp - Math.floor(Date.now() / 1000));
    const done = own ? [cookie(LOGIN_COOKIE, "", 0, "/callback")] : []; // ours is used up; another tab's is not
    redirect(response, returnTo, [cookie(TOKEN_COOKIE, token, maxAge), ...done]);
  }

  async function exchangeOwnCode(url, { state, nonce, verifier }) {
    const tokens = await oidc.authorizationCodeGrant(provider, url, {
      expectedState: state, expectedNonce: nonce, pkceCodeVerifier: verifier, idTokenExpected: true,
    });
    return tokens.id_token;
  }

  /** The gate keeps its nonce to itself, and the library's code flow insists on it: exchange the code plainly. */
  async function exchangeGateCode(url) {
    const [code, iss] = ["code", "iss"].map((name) => url.searchParams.get(name));
    if (!code || iss !== issuer) throw new Error("no code, or another issuer's");
    const tokens = await oidc.genericGrantRequest(provider, "authorization_code", { code, redirect_uri: redirectUri });
    return tokens.id_token ?? "";
  }

  async function verify(token) {
    const { payload } = await jwtVerify(token, keys, {
      issuer, audience: clientId, algorithms: ["RS256"], requiredClaims: ["sub", "exp", "iat"],
    });
    return payload;
  }

  /** The claims of the token in the cookie, whatever its `amr` says: asking for more is the gate's business. */
  async function session(cookies) {
    const token = cookies.get(TOKEN_COOKIE);
    if (!token) return undefined;
    return verify(token).catch(() => undefined);
  }

  function logout(request, response) {
    if (request.headers.origin !== publicUrl) return redirect(response, "/");
    const url = oidc.buildEndSessionUrl(provider, { post_logout_redirect_uri: `${publicUrl}/` });
    redirect(response, url.href, [cookie(TOKEN_COOKIE, "", 0)]);
  }

  function send(response, status, page) {
    response.writeHead(status, headers).end(page);
  }

  return {
    port: server.address().port,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function redirect(response, location, setCookie = []) {
  response.writeHead(303, { location, "cache-control": "no-store", "set-cookie": setCookie }).end();
}

/** No `Secure`: the demo is on plain http. Behind https it belongs here, with the `__Host-` prefix. */
function cookie(name, value, maxAge, path = "/") {
  return `${name}=${value}; Path=${path}; Max-Age=${maxAge}; HttpOnly; SameSite=Lax`;
}

function readCookies({ headers }) {
  const pairs = (headers.cookie ?? "").split(";").map((pair) => pair.trim().split(/=(.*)/s, 2));
  return new Map(pairs);
}

function readAttempt(cookies) {
  try {
    return JSON.parse(Buffer.from(cookies.get(LOGIN_COOKIE) ?? "", "base64url"));
  } catch {
    return undefined;
  }
}

function loginUrl(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return `/login?${new URLSearchParams(given)}`;
}

/** The gate's state is `<random>.<the path, base64url>`; the path may be absent. */
function gatePath(state) {
  const [, path] = state.split(".");
  return safePath(path && Buffer.from(path, "base64url").toString("latin1")) ?? "/";
}

/** A path of this origin, and nothing that a browser would read as another origin or a header as its end. */
function safePath(path) {
  return /^\/(?![/\\])[\x21-\x7e]*$/.test(path ?? "") ? path : undefined;
}
