// Keys and ID Tokens for the benchmark. Those for a round that sees every token once are kept under target/bench, since an
// RS256 signature takes a third of a millisecond.

import { constants, createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";

export const ISSUER = "https://idp.example.test/";
export const CLIENT_ID = "k3yC1ient";

const DIRECTORY = fileURLToPath(new URL("../target/bench/", import.meta.url));
const ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"];
const DAY = 86_400;

const SIGNERS = {
  RS256: (text, key) => sign("sha256", text, key),
  PS256: (text, key) => sign("sha256", text, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }),
  ES256: (text, key) => sign("sha256", text, { key, dsaEncoding: "ieee-p1363" }),
  EdDSA: (text, key) => sign(null, text, key),
};

/** The keys, by algorithm, as PEM. The same in every run, so that tokens can be kept. */
const pems = isMainThread ? keptKeys() : workerData.pems;

/** The provider's key set: one key of each kind. */
export function keySet() {
  return { keys: ALGORITHMS.map((alg) => ({ ...createPublicKey(pems[alg]).export({ format: "jwk" }), kid: kid(alg), alg, use: "sig" })) };
}

/** An ID Token of the size that providers make: about 900 bytes with RS256. All tokens of an algorithm are equally long. */
export function mint({ alg = "RS256", claims = {}, now = Math.floor(Date.now() / 1000) } = {}) {
  const header = { alg, typ: "JWT", kid: kid(alg) };
  const payload = {
    iss: ISSUER,
    sub: "auth0|66f0a1b2c3d4e5f60718293a",
    aud: CLIENT_ID,
    iat: now,
    exp: now + 30 * DAY,
    auth_time: now - 60,
    nonce: "n-0S6_WzA2MjKq8vHcXb3tYw",
    jti: randomUUID(),
    sid: "5pRk0q2mVbTzX8sJ1LcYwE4uG7dHnA9f",
    amr: ["pwd", "mfa"],
    name: "Ada Lovelace",
    email: "ada.lovelace@example.com",
    email_verified: true,
    ...claims,
  };
  const text = [header, payload].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  keys[alg] ??= createPrivateKey(pems[alg]);
  return `${text}.${SIGNERS[alg](Buffer.from(text), keys[alg]).toString("base64url")}`;
}

/** Distinct tokens, signed on all cores. */
export async function mintMany(alg, count) {
  const shares = availableParallelism();
  const parts = await Promise.all(Array.from({ length: shares }, (_, share) => {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { pems, alg, count: Math.floor((count + share) / shares) },
    });
    return new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
  }));
  return parts.flat();
}

/** A file of distinct tokens, one a line: `{ file, count, lineBytes }`. */
export async function tokenFile(alg, count) {
  const file = path.join(DIRECTORY, `${alg}-${count}.txt`);
  const stale = () => Date.now() - statSync(file).mtimeMs > 20 * DAY * 1000;
  if (!existsSync(file) || stale()) {
    writeFileSync(`${file}.new`, `${(await mintMany(alg, count)).join("\n")}\n`);
    renameSync(`${file}.new`, file);
  }
  return { file, count, lineBytes: statSync(file).size / count };
}

const keys = {};

function kid(alg) {
  return `2026-11-${alg}`;
}

function keptKeys() {
  const file = path.join(DIRECTORY, "keys.json");
  if (!existsSync(file)) {
    mkdirSync(DIRECTORY, { recursive: true });
    writeFileSync(file, JSON.stringify(Object.fromEntries(ALGORITHMS.map((alg) => [alg, newKey(alg)]))));
  }
  return JSON.parse(readFileSync(file, "utf8"));
}

function newKey(alg) {
  const pair = {
    RS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
    PS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
    ES256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }),
    EdDSA: () => generateKeyPairSync("ed25519"),
  }[alg]();
  return pair.privateKey.export({ type: "pkcs8", format: "pem" });
}

if (!isMainThread) {
  const { alg, count } = workerData;
  parentPort.postMessage(Array.from({ length: count }, () => mint({ alg })));
}
