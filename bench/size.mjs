// What the module weighs, and what in it: `node bench/size.mjs [MODULE]`.

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { pathToFileURL } from "node:url";

const SECTIONS = ["custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count"];
const [CUSTOM, IMPORT, CODE] = [0, 2, 10];

/** `{ bytes, gzip, sections: [[name, bytes]], crates: [[name, bytes of code]] }`, the largest first. */
export function weigh(file) {
  const bytes = readFileSync(file);
  const sections = [...sectionsOf(bytes)];
  const names = sections.find(({ name }) => name === "name");
  const code = sections.find(({ id }) => id === CODE);
  const imported = WebAssembly.Module.imports(new WebAssembly.Module(bytes)).filter(({ kind }) => kind === "function").length;
  const functions = functionNames(names.body);
  const crates = new Map();
  functionSizes(code.body).forEach((size, at) => {
    const crate = crateOf(functions.get(imported + at) ?? "");
    crates.set(crate, (crates.get(crate) ?? 0) + size);
  });
  const largest = (entries) => [...entries].sort(([, a], [, b]) => b - a);
  return {
    bytes: bytes.length,
    gzip: gzipSync(bytes, { level: 9 }).length,
    sections: largest(sections.map(({ name, body }) => [name, body.length])),
    crates: largest(crates),
  };
}

function* sectionsOf(bytes) {
  const reader = new Reader(bytes, 8);
  while (reader.more()) {
    const id = reader.byte();
    const body = new Reader(reader.take(reader.integer()));
    const name = id === CUSTOM ? body.text() : SECTIONS[id];
    yield { id, name, body: body.rest() };
  }
}

function functionSizes(body) {
  const reader = new Reader(body);
  return Array.from({ length: reader.integer() }, () => reader.take(reader.integer()).length);
}

function functionNames(body) {
  const reader = new Reader(body);
  while (reader.more()) {
    const [id, part] = [reader.byte(), new Reader(reader.take(reader.integer()))];
    if (id === 1) return new Map(Array.from({ length: part.integer() }, () => [part.integer(), part.text()]));
  }
  return new Map();
}

/**
 * The crate of a mangled name, in either of Rust's two manglings. `<a::B as c::D>::e` belongs to `a`; what is generic belongs
 * to whoever wrote it, whatever it is used with.
 */
function crateOf(name) {
  const [, length, rest] = /^_ZN(\d+)(.*)$/.exec(name) ?? [];
  if (length !== undefined) {
    const first = rest.slice(0, length);
    return first.startsWith("_$") ? (/([a-z_]\w*?)\.\./.exec(first.replace(/\$\w+\$|mut\b|dyn\b/g, " "))?.[1] ?? "core") : first;
  }
  const [, size, crate] = /^_R.*?C(?:s[0-9A-Za-z]*_)?(\d+)_?([a-z_]\w*)$/.exec(name) ?? [];
  if (size !== undefined) return crate.slice(0, size);
  return name.startsWith("proxy_on_") ? "proxy_wasm" : "libc";
}

class Reader {
  #bytes;
  #at;

  constructor(bytes, at = 0) {
    this.#bytes = bytes;
    this.#at = at;
  }

  more() {
    return this.#at < this.#bytes.length;
  }

  byte() {
    return this.#bytes[this.#at++];
  }

  /** LEB128, unsigned. */
  integer() {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = this.byte();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  }

  take(size) {
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  text() {
    return this.take(this.integer()).toString("utf8");
  }

  rest() {
    return this.#bytes.subarray(this.#at);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { bytes, gzip, sections, crates } = weigh(process.argv[2] ?? "dist/stepgate.wasm");
  const table = (entries) => entries.map(([name, size]) => `${String(size).padStart(10)}  ${name}`).join("\n");
  console.log(`${bytes} bytes, ${gzip} with gzip\n\nSections\n${table(sections)}\n\nCode, by crate\n${table(crates)}`);
}
