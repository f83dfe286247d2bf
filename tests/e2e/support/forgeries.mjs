// Tokens whose signatures are nearly right, or right in a rare way: the categories of Project Wycheproof's vectors, which are
// no tokens themselves. With the private key at hand, an RSA signature can be made of any padded block.

import { constants, createHash, generateKeyPair, privateEncrypt, sign } from "node:crypto";
import { promisify } from "node:util";

import { mint } from "./tokens.mjs";

/** Each size, and each hash; the large ones are slow to sign with. */
const RSA_KEYS = { 2048: ["RS256", "RS384", "RS512"], 3072: ["RS384"], 4096: ["RS512"] };
const HASHES = { RS256: "sha256", RS384: "sha384", RS512: "sha512" };
const OIDS = {
  md5: "2a864886f70d0205",
  sha1: "2b0e03021a",
  sha224: "608648016503040204",
  sha256: "608648016503040201",
  sha384: "608648016503040202",
  sha512: "608648016503040203",
};
const P = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
const N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

/** The keys: of each size of RSA, of P-256, and another one of that. */
export async function forgersKeys() {
  const rsa = await Promise.all(Object.keys(RSA_KEYS).map((bits) => newRsaKey(Number(bits))));
  // A signature can only be written as one plus the modulus where the modulus leaves room for it.
  while (Buffer.from(rsa[0].jwk.n, "base64url")[0] > 0xe0) {
    rsa[0] = await newRsaKey(2048);
  }
  const [ec, other] = await Promise.all(["ec", "ec-other"].map((kid) => newKey("ec", { namedCurve: "P-256" }, kid)));
  return { rsa, ec, other, jwks: { keys: [...rsa, ec, other].map(({ jwk }) => jwk) } };
}

/** The tokens: `{ name, alg, token, good }`. */
export function forgedSignatures({ rsa, ec, other }) {
  const [rsa2048] = rsa;
  const room = 2n ** 2048n - rsaNumbers(rsa2048).n;
  return [
    ...rsa.flatMap((key) => RSA_KEYS[key.bits].flatMap((alg) => RSA.map((row) => forged(alg, key, row)))),
    forged("RS256", rsa2048, ["the modulus added, as long", ({ n, k, number }) => bytes(number + n, k)], ({ number }) => number < room),
    forged("RS256", rsa2048, ["beginning with a zero", ({ signature }) => signature, true], beginsWithZero),
    forged("RS256", rsa2048, ["beginning with a zero that is left out", ({ signature }) => signature.subarray(1)], beginsWithZero),
    ...ECDSA.map((row) => forged("ES256", ec, row)),
    ...EDGES.flatMap(([r, rName]) => EDGES.map(([s, sName]) =>
      forged("ES256", ec, [`r = ${rName}, s = ${sName}`, () => pair(r, s)]))),
    // What DER writes shorter, or longer.
    ...[0, 32].flatMap((at) => [
      forged("ES256", ec, [`byte ${at} zero`, ({ signature }) => signature, true], ({ signature }) => signature[at] === 0),
      forged("ES256", ec, [`byte ${at} high`, ({ signature }) => signature, true], ({ signature }) => signature[at] > 127),
    ]),
    forged("ES256", ec, ["by another key", ({ message }) => signed("sha256", message, other)]),
  ];
}

/** Padded blocks and numbers of RSASSA-PKCS1-v1_5 (RFC 8017 sections 8.2.2 and 9.2). */
const RSA = [
  ["good", ({ signature }) => signature, true],
  ["good, as padded here", block(({ info, pad }) => pad(info)), true],

  ["block type 0", block(({ info, pad }) => pad(info, { type: 0 }))],
  ["block type 2", block(({ info, pad }) => pad(info, { type: 2 }))],
  ["a first byte of 1", block(({ info, pad }) => pad(info, { first: 1 }))],
  ["no first byte", block(({ info, pad, k }) => Buffer.concat([pad(info).subarray(1), Buffer.from([0])]))],
  ["no zero behind the padding", block(({ info, pad }) => pad(info, { separator: 0xff }))],
  ["two zeros behind the padding", block(({ info, pad }) => pad(Buffer.concat([Buffer.from([0]), info])))],
  ["padding of zeros", block(({ info, pad }) => pad(info, { fill: 0 }))],
  ["padding of 0xfe", block(({ info, pad }) => pad(info, { fill: 0xfe }))],
  ["a zero first in the padding", block(({ info, pad }) => changed(pad(info), 2, 0))],
  ["a zero amid the padding", block(({ info, pad }) => changed(pad(info), 40, 0))],
  ["another byte amid the padding", block(({ info, pad }) => changed(pad(info), 40, 0xfe))],
  ["no padding, zeros in front", block(({ info, k }) => Buffer.concat([Buffer.alloc(k - info.length), info]))],
  ["short padding, zeros in front", block(({ short, k }) => Buffer.concat([Buffer.alloc(k - short(8).length), short(8)]))],
  ["short padding, zeros behind", block(({ short, k }) => filled(short(8), k, 0))],
  ["short padding, garbage behind", block(({ short, k }) => filled(short(8), k, 0xa5))],
  ["padding of seven bytes, garbage behind", block(({ short, k }) => filled(short(7), k, 0xa5))],
  ["no padding, garbage behind", block(({ short, k }) => filled(short(0), k, 0xa5))],
  ["garbage in the parameters", block(({ oid, digest, pad, k }) => pad(digestInfo(oid, digest, der(4, Buffer.alloc(k - 110, 0xa5)))))],
  ["a byte of garbage behind", block(({ info, pad }) => pad(Buffer.concat([info, Buffer.from([0])])))],

  ["no parameters", block(({ oid, digest, pad }) => pad(digestInfo(oid, digest, Buffer.alloc(0))))],
  ["NULL with a long length", block(({ oid, digest, pad }) => pad(digestInfo(oid, digest, Buffer.from("058100", "hex"))))],
  ["NULL with a content", block(({ oid, digest, pad }) => pad(digestInfo(oid, digest, Buffer.from("050100", "hex"))))],
  ["NULL twice", block(({ oid, digest, pad }) => pad(digestInfo(oid, digest, Buffer.from("05000500", "hex"))))],
  ["an empty sequence for NULL", block(({ oid, digest, pad }) => pad(digestInfo(oid, digest, Buffer.from("3000", "hex"))))],
  ["a sequence of long length", block(({ info, pad }) => pad(Buffer.concat([Buffer.from([0x30, 0x81]), info.subarray(1)])))],
  ["a sequence of no definite length", block(({ info, pad }) => pad(Buffer.concat([changed(info, 1, 0x80), Buffer.alloc(2)])))],
  ["a sequence that ends early", block(({ info, pad }) => pad(changed(info, 1, info[1] - 1)))],
  ["a set for the sequence", block(({ info, pad }) => pad(changed(info, 0, 0x31)))],
  ["NULL behind the digest", block(({ oid, digest, pad }) => pad(der(0x30, algorithm(oid), der(4, digest), der(5))))],
  ["a bit string for the octets", block(({ oid, digest, pad }) => pad(der(0x30, algorithm(oid), der(3, digest))))],
  ["octets in pieces", block(({ oid, digest, pad }) => pad(der(0x30, algorithm(oid), der(0x24, der(4, digest)))))],
  ["no algorithm", block(({ digest, pad }) => pad(der(0x30, der(4, digest))))],
  ["octets alone", block(({ digest, pad }) => pad(der(4, digest)))],
  ["the digest alone", block(({ digest, pad }) => pad(digest))],
  ["the message alone", block(({ message, pad }) => pad(message.subarray(0, 64)))],
  ["the digest in hexadecimal", block(({ oid, digest, pad }) => pad(digestInfo(oid, Buffer.from(digest.toString("hex")))))],
  ["the digest cut", block(({ oid, digest, pad }) => pad(digestInfo(oid, digest.subarray(1))))],
  ["the digest longer", block(({ oid, digest, pad }) => pad(digestInfo(oid, Buffer.concat([digest, Buffer.from([0])]))))],
  ["no digest", block(({ oid, pad }) => pad(digestInfo(oid, Buffer.alloc(0))))],
  ["a digest of zeros", block(({ oid, digest, pad }) => pad(digestInfo(oid, Buffer.alloc(digest.length))))],
  ["the digest of the digest", block(({ oid, digest, hash, pad }) => pad(digestInfo(oid, hashed(hash, digest))))],
  ["the digest of another message", block(({ oid, message, hash, pad }) => pad(digestInfo(oid, hashed(hash, message.subarray(1)))))],
  ...Object.entries(OIDS).map(([hash, oid]) => [
    `hashed by ${hash}`, block(({ message, pad }) => pad(digestInfo(oid, hashed(hash, message)))), hash,
  ]),
  ["another hash's name", block(({ digest, hash, pad }) => pad(digestInfo(OIDS[hash === "sha256" ? "sha512" : "sha256"], digest)))],
  ["MD5's name", block(({ digest, pad }) => pad(digestInfo(OIDS.md5, digest)))],
  ["PSS", ({ message, hash, key }) => sign(hash, message, { key: key.privateKey, padding: constants.RSA_PKCS1_PSS_PADDING })],

  ["0", ({ k }) => bytes(0n, k)],
  ["1", ({ k }) => bytes(1n, k)],
  ["n - 1", ({ n, k }) => bytes(n - 1n, k)],
  ["n", ({ n, k }) => bytes(n, k)],
  ["n + 1", ({ n, k }) => bytes(n + 1n, k)],
  ["all ones", ({ k }) => Buffer.alloc(k, 0xff)],
  ["n - s", ({ n, number, k }) => bytes(n - number, k)],
  ["n + s", ({ n, number, k }) => bytes(n + number, k + 1)],
  ["s + 1", ({ number, k }) => bytes(number + 1n, k)],
  ["s²", ({ n, number, k }) => bytes((number * number) % n, k)],
  ["the padded block itself", ({ info, pad }) => pad(info)],
  ["backwards", ({ signature }) => Buffer.from(signature).reverse()],
  ["empty", () => Buffer.alloc(0)],
  ["a zero in front", ({ signature }) => Buffer.concat([Buffer.from([0]), signature])],
  ["a zero behind", ({ signature }) => Buffer.concat([signature, Buffer.from([0])])],
  ["the first byte missing", ({ signature }) => signature.subarray(1)],
  ["the last byte missing", ({ signature }) => signature.subarray(0, -1)],
  ["half of it", ({ signature, k }) => signature.subarray(0, k / 2)],
  ["twice", ({ signature }) => Buffer.concat([signature, signature])],
  ...Array.from({ length: 16 }, (_, at) => [`bit ${at} of 16 flipped`, ({ signature, k }) => flipped(signature, (at * k) / 2 + at)]),
];

/** Pairs r ‖ s of ECDSA (RFC 7518 section 3.4, FIPS 186-5 section 6.4.2). */
const ECDSA = [
  ["good", ({ signature }) => signature, true],
  ["the other s", ({ r, s }) => pair(r, N - s), true],

  ["the other r", ({ r, s }) => pair(N - r, s)],
  ["both others", ({ r, s }) => pair(N - r, N - s)],
  ["r = 0", ({ s }) => pair(0n, s)],
  ["s = 0", ({ r }) => pair(r, 0n)],
  ["r = n", ({ s }) => pair(N, s)],
  ["s = n", ({ r }) => pair(r, N)],
  ["r + 1", ({ r, s }) => pair(r + 1n, s)],
  ["s + 1", ({ r, s }) => pair(r, s + 1n)],
  ["s before r", ({ r, s }) => pair(s, r)],
  ["r twice", ({ r }) => pair(r, r)],
  ["the lowest byte first", ({ signature }) => Buffer.concat([half(signature, 0).reverse(), half(signature, 1).reverse()])],
  ["in DER", ({ message, key }) => sign("sha256", message, key.privateKey)],
  ["hashed by SHA-384", ({ message, key }) => signed("sha384", message, key)],
  ["hashed by SHA-512", ({ message, key }) => signed("sha512", message, key)],
  ["hashed by SHA-1", ({ message, key }) => signed("sha1", message, key)],
  ["hashed twice", ({ message, key }) => signed("sha256", hashed("sha256", message), key)],
  ["of another message", ({ message, key }) => signed("sha256", message.subarray(1), key)],
  ["empty", () => Buffer.alloc(0)],
  ["r alone", ({ signature }) => half(signature, 0)],
  ["the first byte missing", ({ signature }) => signature.subarray(1)],
  ["the last byte missing", ({ signature }) => signature.subarray(0, -1)],
  ["a zero in front", ({ signature }) => Buffer.concat([Buffer.from([0]), signature])],
  ["a zero behind", ({ signature }) => Buffer.concat([signature, Buffer.from([0])])],
  ["of 33 bytes each", ({ r, s }) => Buffer.concat([bytes(r, 33), bytes(s, 33)])],
  ["n added", ({ r, s }) => Buffer.concat([bytes(r + N, 33), bytes(s + N, 33)])],
  ["twice", ({ signature }) => Buffer.concat([signature, signature])],
  ...Array.from({ length: 64 }, (_, at) => [`byte ${at} with a bit flipped`, ({ signature }) => flipped(signature, at * 8 + (at % 8))]),
];

const EDGES = [
  [0n, "0"], [1n, "1"], [2n, "2"], [(N - 1n) / 2n, "(n - 1) / 2"], [N - 1n, "n - 1"],
  [N, "n"], [N + 1n, "n + 1"], [P - N, "p - n"], [P, "p"], [2n ** 256n - 1n, "2²⁵⁶ - 1"],
];

/** Mints until a signature fits; `good` is true, or the hash by which it is. */
function forged(alg, key, [name, forge, good = false], fits = () => true) {
  for (;;) {
    const token = mint({ alg, key });
    const at = token.lastIndexOf(".");
    const message = Buffer.from(token.slice(0, at));
    const signature = Buffer.from(token.slice(at + 1), "base64url");
    const parts = { key, message, signature, ...(alg === "ES256" ? ecNumbers(signature) : rsaParts(alg, key, message, signature)) };
    if (!fits(parts)) continue;
    return {
      name: `${alg}, ${key.kid}: ${name}`,
      alg,
      token: `${message}.${forge(parts).toString("base64url")}`,
      good: good === true || good === HASHES[alg],
    };
  }
}

function rsaParts(alg, key, message, signature) {
  const hash = HASHES[alg];
  const [oid, digest] = [OIDS[hash], hashed(hash, message)];
  const numbers = rsaNumbers(key);
  const pad = (content, { first = 0, type = 1, fill = 0xff, separator = 0 } = {}, length = numbers.k) =>
    Buffer.concat([filled(Buffer.from([first, type]), length - content.length - 1, fill), Buffer.from([separator]), content]);
  const info = digestInfo(oid, digest);
  const short = (padding) => pad(info, {}, info.length + 3 + padding);
  return { ...numbers, hash, oid, digest, info, pad, short, number: number(signature) };
}

function rsaNumbers({ jwk }) {
  const modulus = Buffer.from(jwk.n, "base64url");
  return { n: number(modulus), k: modulus.length };
}

function ecNumbers(signature) {
  return { r: number(half(signature, 0)), s: number(half(signature, 1)) };
}

/** The signature that a verifier turns into this block. */
function block(pad) {
  return (parts) => privateEncrypt({ key: parts.key.privateKey, padding: constants.RSA_NO_PADDING }, pad(parts));
}

function beginsWithZero({ signature }) {
  return signature[0] === 0;
}

async function newRsaKey(bits) {
  return { bits, ...await newKey("rsa", { modulusLength: bits }, `rsa-${bits}`) };
}

async function newKey(type, options, kid) {
  const { privateKey, publicKey } = await promisify(generateKeyPair)(type, options);
  return { kid, privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid, use: "sig" } };
}

function signed(hash, message, { privateKey }) {
  return sign(hash, message, { key: privateKey, dsaEncoding: "ieee-p1363" });
}

function hashed(hash, message) {
  return createHash(hash).update(message).digest();
}

function digestInfo(oid, digest, parameters) {
  return der(0x30, algorithm(oid, parameters), der(4, digest));
}

function algorithm(oid, parameters = der(5)) {
  return der(0x30, der(6, Buffer.from(oid, "hex")), parameters);
}

function der(tag, ...contents) {
  const content = Buffer.concat(contents);
  const { length } = content;
  const encoded = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...encoded]), content]);
}

function half(signature, which) {
  return Buffer.from(signature.subarray(32 * which, 32 * which + 32));
}

function pair(r, s) {
  return Buffer.concat([bytes(r, 32), bytes(s, 32)]);
}

function number(buffer) {
  return BigInt(`0x${buffer.toString("hex")}`);
}

function bytes(value, length) {
  return Buffer.from(value.toString(16).padStart(2 * length, "0"), "hex");
}

function filled(buffer, length, byte) {
  return Buffer.concat([buffer, Buffer.alloc(length - buffer.length, byte)]);
}

function changed(buffer, at, byte) {
  const copy = Buffer.from(buffer);
  copy[at] = byte;
  return copy;
}

function flipped(buffer, bit) {
  return changed(buffer, bit >> 3, buffer[bit >> 3] ^ (1 << (bit & 7)));
}
