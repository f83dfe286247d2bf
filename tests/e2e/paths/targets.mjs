// Request targets around protected ones: endless, and the same ones again for the same seed.

import { generator, pick } from "../support/random.mjs";

/** Pages of the origins that are protected, and a way to them by way of one that is not. */
const PAGES = [
  "/salary", "/salary/", "/salary/2026", "/salary/2025/november", "/users/7/salary", "/salary/help/../2026",
];

/** What a slash can be written as. */
const SLASHES = [
  "//", "///", "\\", "/\\", "%2f", "%2F", "/%2f", "%5c", "%5C", "%252f", "%252F", "%255c", "%25252f", "%u002f", "%u2215",
  "%c0%af", "%e0%80%af", "%ef%bc%8f", "\xef\xbc\x8f", "%e2%88%95", "%e2%81%84", "\xc0\xaf",
];

/** Segments that lead nowhere, to some servers. */
const DETOURS = [
  ".", "%2e", "%252e", "x/..", "x/%2e%2e", "x/%2E.", "x/.%2e", "x/%252e%252e", "x%2f..", "x%2f%2e%2e", "x%252f..",
  "x\\..", "x%5c..", "x/..;", "x/..;a=b", "x;a/..", "x/..%3b", ";", ";x", "..", "%2e%2e", "../..", "x//..", "x/y/../..",
  "help/..", "help%2f..", "x/.. ", "x/..%20", "x/. .", "x/...", "x/..%00", "x/..%09", "x/%c0%ae%c0%ae", "x/%e2%80%a5",
  "x/%ef%bc%8e%ef%bc%8e", "x/%u002e%u002e", "%3f/..", "%23/..", "x%3fy/..", "x%23y/..", "%25/..", "%/..", "%20/..",
  "x%0a/..", "\xff/..", "%ff/..", "salary/..", "http:/..",
];

/** What can be written behind a segment, and is nothing or the end to some servers. */
const TAILS = [
  ";", ";x", ";x=1", ";jsessionid=1", ";x=1;y=2", "%3b", "%3bx=1", "%253b", ".", "..", "...", "%2e", "%2e%2e", " ", "%20",
  "%20.", "+", "%00", "%00.html", "%2500", "%01", "%09", "%0a", "%0d", "%0d%0a", "%1f", "%7f", "\t", "\x01", "\x7f", "\x0b",
  "%80", "%a0", "%ad", "%c2%a0", "%c2%ad", "%e2%80%8b", "%ef%bb%bf", "%u0000", "%", "%%", "%2", "%zz", "%u", "::$DATA",
  "::$INDEX_ALLOCATION", "~1", "*", "$", ",", "&x", "=", "\xa0", "\xff",
  "%2fx", "%2Fx", "%252fx", "%5cx",
];

/** What can follow a path. */
const ENDS = [
  "/", "//", "/.", "/%2e", "/./", "/x/..", "/..;/2026", "?", "?x", "?/../../x", "??", "#", "#x", "#/../x", "%3f", "%3fx",
  "%3f/../x", "%23", "%23x", "%23/../../x", "%253fx", ".json", ".html", ";.css", "%00.css", "/x.css", "%2f", "%2f..%2f2026", "\\",
  "%5c", "/*", "|", "\"", "<", "`", "{", "^",
];

/** What can precede a path. */
const STARTS = [
  "/.", "/..", "/%2e%2e", "/x/..", "/x/%2e%2e", "/", "//", "/%2f", "/\\", "\\", "\\\\", "%2f", "/%5c", "/;", "/;x", "/.;x",
  "//x", "///x", "/%2fx", "/\\x", "\\\\x", "/\\/x", "//x:1", "//u@x", "//x%2f..", "/.//x", "/..//x", "/%09", "/%09/x", "/%0a/x",
  "/http:", "/http:/", "/http://x", "/%20", "/\x0c", "http://app", "HTTP://app", "https://app:443", "http://u:p@app", "http:",
  "http:/", "ftp://app", "x://app", "://app", "http://app/x/..", "http://app//x", "http://app?", "http://app#",
  "http://app\\x", "*", "*/", "x/../", "./", "../", "?", "#", "%", " ",
];

/** Characters that some servers take for an `s`, an `l` and so on: full-width, and what upper case makes of them. */
const LOOK_ALIKES = { s: ["%c5%bf", "\xc5\xbf"], K: ["%e2%84%aa"] };

const OTHER_METHODS = ["HEAD", "POST", "PUT", "OPTIONS", "TRACE", "CONNECT"];

/**
 * Endless targets: `{ protocol, method, path, headers, disguises }`. A character of a path is a byte.
 *
 * @param {number} seed
 */
export function* targets(seed) {
  const random = generator(seed);
  for (;;) {
    const disguises = Array.from({ length: pick(random, [1, 1, 2, 2, 3, 4]) }, () => pick(random, DISGUISES));
    const path = disguises.reduce((path, disguise) => disguise(path, random), pick(random, PAGES));
    if (PAGES.includes(path)) continue;
    const method = random() < 0.9 ? "GET" : pick(random, OTHER_METHODS);
    const protocol = pick(random, ["h1", "h2"]);
    // A plain CONNECT has no path in HTTP/2; one that opens a WebSocket (RFC 8441) does.
    const headers = protocol === "h2" && method === "CONNECT" ? { ":protocol": "websocket" } : {};
    yield { protocol, method, path, headers, disguises: disguises.map(({ name }) => name) };
  }
}

const DISGUISES = [letters, wholly, upperCase, slashes, detours, tails, ends, starts, encodedAgain, decodedOnce];

/** Some letters in other spellings. */
function letters(path, random) {
  const share = pick(random, [0.1, 0.5, 1]);
  return path.replace(/[A-Za-z0-9]/g, (letter) => (random() < share ? spelled(letter, random) : letter));
}

/** Everything but the slashes, percent-encoded. */
function wholly(path) {
  return path.replace(/[^/]/gs, (character) => percent(character));
}

function upperCase(path, random) {
  const share = pick(random, [0.2, 1]);
  return path.replace(/(?<!%.?)[a-z]/g, (letter) => (random() < share ? letter.toUpperCase() : letter));
}

function slashes(path, random) {
  return somewhere(path, random, () => pick(random, SLASHES));
}

function detours(path, random) {
  return somewhere(path, random, () => `/${pick(random, DETOURS)}/`);
}

/** Something behind a segment. */
function tails(path, random) {
  return somewhere(`${path}/`, random, () => `${pick(random, TAILS)}/`).slice(0, -1);
}

function ends(path, random) {
  return path + pick(random, ENDS);
}

function starts(path, random) {
  return pick(random, STARTS) + (random() < 0.8 ? path : path.replace(/^\//, ""));
}

/** Once more, what is encoded already. */
function encodedAgain(path, random) {
  const share = pick(random, [0.5, 1]);
  return path.replaceAll("%", () => (random() < share ? "%25" : "%"));
}

/** An escape as the byte itself, where a request line allows that. */
function decodedOnce(path) {
  return path.replace(/%([0-9a-f]{2})/gi, (escape, code) =>
    (/00|0a|0d|20/i.test(code) ? escape : String.fromCharCode(Number.parseInt(code, 16))));
}

/** Replaces slashes: one, or each as chance will have it. */
function somewhere(path, random, replacement) {
  const positions = [...path.matchAll(/\//g)].map(({ index }) => index);
  if (positions.length === 0) return path;
  const chosen = random() < 0.7 ? new Set([pick(random, positions)]) : new Set(positions.filter(() => random() < 0.5));
  return path.replace(/\//g, (slash, index) => (chosen.has(index) ? replacement() : slash));
}

function spelled(letter, random) {
  const code = letter.charCodeAt(0);
  const wide = Buffer.from(String.fromCharCode(code + 0xfee0));
  return pick(random, [
    percent(letter), percent(letter), percent(letter).toUpperCase(), `%25${code.toString(16)}`, `%2525${code.toString(16)}`,
    `%u00${code.toString(16)}`, `%uff${(code - 0x20).toString(16)}`, escaped([0xc0 | (code >> 6), 0x80 | (code & 0x3f)]),
    escaped([0xe0, 0x80 | (code >> 6), 0x80 | (code & 0x3f)]), escaped(wide), wide.toString("latin1"),
    ...(LOOK_ALIKES[letter] ?? []),
  ]);
}

function percent(character) {
  return escaped([character.charCodeAt(0)]);
}

function escaped(bytes) {
  return [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
}
