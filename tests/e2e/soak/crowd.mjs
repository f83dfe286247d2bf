// What a crowd sends: endless requests, each with the answer that it must get, and the same ones again for the same seed.
// Only the tokens differ from run to run, since signatures and times do.

import { sign } from "node:crypto";

import { cookie, NAVIGATION } from "../support/gate.mjs";
import { between, bytes, pick } from "../support/random.mjs";
import { CLIENT_ID } from "../support/tokens.mjs";

/** The cookie with the token. */
export const COOKIE = "__Host-id_token";

/** The header by which the app learns who asks. */
export const USER = "x-user-id";

/** People whose names begin so may see the protected pages. */
export const MAY_SEE = "mfa-";

/** The longest token that a gate takes by default. */
const MAX_TOKEN = 16_384;

/** Too long for a gate, and not for Envoy, which by default takes 60 KiB of request headers. */
const TOO_LONG = [MAX_TOKEN + 1_000, 58_000];

/** How many valid tokens are kept, to be sent again: more than a gate's cache holds. */
const RECENT = 6_000;

/** How many random bytes there are to take noise from. */
const POOL = 200_000;

const SCRIPT = [["accept", "application/json"]];

/**
 * How often each kind of request comes, and how it is made. An expectation is a user's name (the app answers, and knows
 * that user alone), a reason of the gate's, or a status of Envoy's own.
 */
const KINDS = {
  "valid, with MFA": [200, (crowd) => crowd.good(crowd.token())],
  "valid, with MFA, again": [160, (crowd) => crowd.good(pick(crowd.random, crowd.recent) ?? crowd.token())],
  "valid, with MFA, RS256": [5, (crowd) => crowd.good(crowd.token({ alg: "RS256" }))],
  "valid, with MFA, long": [40, (crowd) => crowd.good(crowd.token({ length: crowd.between(4_000, MAX_TOKEN) }))],
  "valid, with MFA, in chunks": [20, (crowd) => crowd.good(crowd.token({ length: MAX_TOKEN }), chunks)],
  "valid, with MFA, many times": [10, (crowd) => crowd.good(crowd.token(), repeated)],
  "valid, without MFA": [80, (crowd) => crowd.refused("amr_insufficient", crowd.weak())],
  "valid, without MFA, open page": [60, (crowd) => crowd.at("/news", crowd.weak())],
  "no token": [40, (crowd) => crowd.refused("token_missing")],
  "no token, other cookies": [20, (crowd) => crowd.refused("token_missing", undefined, () => crowd.otherCookies())],
  "forged signature": [80, (crowd) => crowd.refused("signature_invalid", crowd.forged())],
  "unknown key": [80, (crowd) => crowd.refused("key_unknown", crowd.unknown(20))],
  "unknown key, long name": [5, (crowd) => crowd.refused("key_unknown", crowd.unknown(170))],
  "algorithm": [20, (crowd) => crowd.refused("algorithm_not_allowed", crowd.token({ header: { alg: crowd.algorithm() } }))],
  "noise": [80, (crowd) => crowd.refused("token_malformed", { text: crowd.noise(crowd.between(1, 3_000)) })],
  "three parts of noise": [20, (crowd) => crowd.refused("token_malformed", { text: crowd.parts(9, 99, 64) })],
  "bytes": [20, (crowd) => crowd.refused("token_malformed", { text: crowd.highBytes(crowd.between(1, 3_000)) })],
  "huge": [20, (crowd) => crowd.refused("token_malformed", crowd.token({ length: crowd.between(...TOO_LONG) }))],
  "too huge for Envoy": [5, (crowd) => crowd.dropped(crowd.noise(70_000))],
  "two tokens": [20, (crowd) => crowd.refused("token_ambiguous", crowd.token(), both(crowd.token()))],
  "expired": [20, (crowd) => crowd.refused("token_expired", crowd.token({ claims: { exp: 1_000 } }))],
  "not yet valid": [10, (crowd) => crowd.refused("token_not_yet_valid", crowd.token({ claims: { nbf: 9_999_999_999 } }))],
  "another issuer": [10, (crowd) => crowd.refused("issuer_mismatch", crowd.token({ claims: { iss: "https://x.test/" } }))],
  "another audience": [10, (crowd) => crowd.refused("audience_mismatch", crowd.token({ claims: { aud: "another" } }))],
  "a path that cannot be read": [10, (crowd) => crowd.unreadable(crowd.token())],
  "gone before the answer": [10, (crowd) => ({ ...crowd.good(crowd.token()), leaves: true })],
  "gone while on hold": [5, (crowd) => ({ ...crowd.refused("key_unknown", crowd.unknown(20)), leaves: true })],
};

const ALGORITHMS = ["none", "HS256", "ES384", "RS1", "es256", ""];

/** The names of all kinds. */
export const KIND_NAMES = Object.keys(KINDS);

const WEIGHTED = Object.entries(KINDS).flatMap(([kind, [weight]]) => Array(weight).fill(kind));

export class Crowd {
  /** Valid tokens of people who have MFA. */
  recent = [];
  #number = 0;
  #pool;

  /**
   * @param {() => number} random
   * @param {{ issuer: string, keys: Record<string, object> }} provider  with the keys that sign now, by algorithm
   */
  constructor(random, provider) {
    this.random = random;
    this.provider = provider;
    this.#pool = bytes(random, POOL).toString("base64url");
  }

  /** The next request: `{ kind, method, path, headers, body, browser, expected, leaves }`. */
  next() {
    const kind = pick(this.random, WEIGHTED);
    const request = KINDS[kind][1](this);
    const browser = this.random() < 0.5;
    const spoofed = this.random() < 0.5 ? [[USER, `${MAY_SEE}spoofed`]] : [];
    // A browser's POST is a navigation as well, and half of all bodies belong to somebody who is refused.
    const posts = this.random() < 0.1 && { method: "POST", body: "x".repeat(this.between(0, 20_000)) };
    const headers = [...(browser ? NAVIGATION : SCRIPT), ...spoofed, ...request.headers];
    return { kind, browser, ...request, ...posts, headers };
  }

  /** A new token of somebody who has MFA, but for what is said. It is `{ text, user }`. */
  token({ alg = "ES256", keys = this.provider.keys, header = {}, claims = {}, length = 0 } = {}) {
    const now = Math.floor(Date.now() / 1000);
    this.#number += 1;
    const user = claims.sub ?? `${MAY_SEE}${this.#number}`;
    const { kid, privateKey } = keys[alg];
    const parts = [
      { alg, typ: "JWT", kid, ...header },
      { iss: this.provider.issuer, sub: user, aud: CLIENT_ID, iat: now, exp: now + 36_000, amr: ["pwd", "mfa"], ...claims },
    ];
    const spare = Math.floor((length * 3) / 4) - 400;
    if (spare > 0) parts[1].padding = this.noise(spare);
    const message = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    const signature = sign("sha256", Buffer.from(message), { key: privateKey, dsaEncoding: "ieee-p1363" });
    return { text: `${message}.${signature.toString("base64url")}`, user };
  }

  weak() {
    return this.token({ claims: { sub: `weak-${this.#number}`, amr: ["pwd"] } });
  }

  /** A token by a key that nobody has. */
  unknown(length) {
    return this.token({ header: { kid: this.noise(length) } });
  }

  algorithm() {
    return pick(this.random, ALGORITHMS);
  }

  /** A token whose signature is none. */
  forged() {
    const { text } = pick(this.random, this.recent) ?? this.token();
    return { text: text.slice(0, text.lastIndexOf(".") + 1) + bytes(this.random, 64).toString("base64url") };
  }

  good(token, cookies = whole) {
    if (this.recent.length < RECENT) this.recent.push(token);
    else this.recent[this.between(0, RECENT - 1)] = token;
    return this.at(this.#page(), token, cookies);
  }

  at(path, token, cookies = whole) {
    return { path, headers: cookies(token), expected: { user: token.user } };
  }

  refused(reason, token, cookies = whole) {
    return { path: this.#page(), headers: token || cookies !== whole ? cookies(token) : [], expected: { reason } };
  }

  unreadable(token) {
    return { path: `/salary/%z${this.noise(8)}`, headers: whole(token), expected: { reason: "path_rejected", status: 400 } };
  }

  dropped(text) {
    return { path: this.#page(), headers: whole({ text }), expected: { status: 431 } };
  }

  /** Letters, digits, `-` and `_`. */
  noise(length) {
    const start = this.between(0, this.#pool.length - length);
    return this.#pool.slice(start, start + length);
  }

  /** Noise of these lengths, with dots between. */
  parts(...lengths) {
    return lengths.map((length) => this.noise(length)).join(".");
  }

  /** Bytes that are no ASCII, and hardly ever UTF-8. */
  highBytes(length) {
    return Buffer.from(Buffer.from(this.noise(length)).map((byte) => byte | 0x80)).toString("latin1");
  }

  otherCookies() {
    const names = Array.from({ length: this.between(100, 1_000) }, () => `${this.noise(6)}=${this.noise(8)}`);
    return [["cookie", names.join("; ")]];
  }

  between(least, most) {
    return between(this.random, least, most);
  }

  #page() {
    return `/salary/${this.noise(this.between(1, 40))}`;
  }
}

function whole({ text }) {
  return [cookie(text, COOKIE)];
}

function chunks({ text }) {
  const pieces = text.match(/.{1,3900}/g).map((piece, at) => `${COOKIE}.${at}=${piece}`);
  return [["cookie", pieces.join("; ")]];
}

function repeated({ text }) {
  return [["cookie", Array(20).fill(`${COOKIE}=${text}`).join("; ")]];
}

function both(other) {
  return (token) => [...whole(token), ...whole(other)];
}
