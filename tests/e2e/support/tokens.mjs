// Keys and ID Tokens. A key is generated when it is first asked for, once per test process.

import { createHmac, constants, generateKeyPairSync, randomUUID, sign } from "node:crypto";

import { secret } from "./secrets.mjs";

/** What every gate configuration of these tests says, unless a test says otherwise. */
export const ISSUER = "https://idp.example.test/";
export const CLIENT_ID = "k3yC1ient";

const SIGNERS = {
  RS256: rsa("sha256"),
  RS384: rsa("sha384"),
  RS512: rsa("sha512"),
  PS256: rsaPss("sha256", 32),
  PS384: rsaPss("sha384", 48),
  PS512: rsaPss("sha512", 64),
  ES256: (text, key) => sign("sha256", text, { key, dsaEncoding: "ieee-p1363" }),
  EdDSA: (text, key) => sign(null, text, key),
};

const keys = new Map();

/** The key of this name, for an algorithm: `{ kid, alg, privateKey, jwk }`, `jwk` being the public one. */
export function signingKey(alg = "RS256", name = "1") {
  const kid = `${alg}-${name}`;
  if (!keys.has(kid)) keys.set(kid, newKey(alg, kid));
  return keys.get(kid);
}

/** The public keys for these algorithms. */
export function publicKeys(...algs) {
  return algs.map((alg) => signingKey(alg).jwk);
}

/**
 * An ID Token that satisfies the default rule, but for what a test changes. A claim or header member of `undefined`
 * is left out.
 *
 * @param {object} [options]
 * @param {string} [options.alg]
 * @param {object} [options.key]     of `signingKey`
 * @param {string} [options.secret]  for HS256
 * @param {object} [options.claims]
 * @param {object} [options.header]
 */
export function mint({ alg = "RS256", key, secret: shared, claims = {}, header = {} } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const signer = shared === undefined ? (key ?? signingKey(alg)) : undefined;
  const text = [
    { alg, typ: "JWT", kid: signer?.kid, ...header },
    { iss: ISSUER, sub: "user-1", aud: CLIENT_ID, iat: now, exp: now + 3600, jti: randomUUID(), amr: ["pwd", "mfa"], ...claims },
  ].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  const bytes = signer
    ? SIGNERS[alg](Buffer.from(text), signer.privateKey)
    : createHmac("sha256", shared).update(text).digest();
  return `${text}.${secret("token", bytes.toString("base64url"))}`;
}

/** The token with other claims under the same signature. */
export function tampered(token, claims = { sub: "user-2" }) {
  const [header, payload, signature] = token.split(".");
  const changed = { ...JSON.parse(Buffer.from(payload, "base64url")), ...claims };
  return [header, Buffer.from(JSON.stringify(changed)).toString("base64url"), signature].join(".");
}

function newKey(alg, kid) {
  const { privateKey, publicKey } = generate(alg);
  secret("private key", privateKey.export({ format: "jwk" }).d);
  return { kid, alg, privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid, alg, use: "sig" } };
}

function generate(alg) {
  if (alg === "ES256") return generateKeyPairSync("ec", { namedCurve: "P-256" });
  if (alg === "EdDSA") return generateKeyPairSync("ed25519");
  return generateKeyPairSync("rsa", { modulusLength: 2048 });
}

function rsa(hash) {
  return (text, key) => sign(hash, text, key);
}

function rsaPss(hash, saltLength) {
  return (text, key) => sign(hash, text, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength });
}
