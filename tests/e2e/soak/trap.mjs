// The module under test, but for one change: a request with TRAP header fields traps the VM. No request is known that makes
// the module itself trap; what the host does then, and how the gate comes back, has to be tried all the same.

const EXPORT = "proxy_on_request_headers";

/** How many header fields, `:method` and the like among them, it takes. */
export const TRAP = 77;

const [IMPORTS, FUNCTIONS, EXPORTS, CODE] = [2, 3, 7, 10];
const FUNCTION = 0;

/** A function in front of the exported one, which has the parameters context, number of header fields, end of stream. */
const guarded = (original) => [
  0, // no locals
  0x20, 1, 0x41, ...signed(TRAP), 0x46, // the number is TRAP
  0x04, 0x40, 0x00, 0x0b, // if so: unreachable
  0x20, 0, 0x20, 1, 0x20, 2, 0x10, ...leb(original), 0x0b, // the original's answer
];

/** The changed module. */
export function trapping(wasm) {
  const sections = split(wasm);
  const imported = entries(sections.get(IMPORTS), importEntry).filter(({ kind }) => kind === FUNCTION).length;
  const types = entries(sections.get(FUNCTIONS), (reader) => reader.leb());
  const exported = entries(sections.get(EXPORTS), exportEntry);
  const { index: original } = exported.find(({ name }) => name === EXPORT);
  const added = imported + types.length;
  const body = guarded(original);

  sections.set(FUNCTIONS, appended(sections.get(FUNCTIONS), leb(types[original - imported])));
  sections.set(CODE, appended(sections.get(CODE), [...leb(body.length), ...body]));
  const changed = exported.map(({ name, kind, index }) =>
    [...leb(name.length), ...Buffer.from(name), kind, ...leb(name === EXPORT ? added : index)]);
  sections.set(EXPORTS, Buffer.from([...leb(changed.length), ...changed.flat()]));
  const parts = [...sections].flatMap(([id, content]) => [Buffer.from([id, ...leb(content.length)]), content]);
  return Buffer.concat([wasm.subarray(0, 8), ...parts]);
}

/** The sections by ID, in order, without names and other custom ones. */
function split(wasm) {
  const reader = new Reader(wasm, 8);
  const sections = new Map();
  while (reader.at < wasm.length) {
    const [id, length] = [reader.byte(), reader.leb()];
    const content = reader.take(length);
    if (id !== 0) sections.set(id, content);
  }
  return sections;
}

function entries(section, read) {
  const reader = new Reader(section);
  return Array.from({ length: reader.leb() }, () => read(reader));
}

function importEntry(reader) {
  reader.take(reader.leb());
  reader.take(reader.leb());
  const kind = reader.byte();
  if (kind !== FUNCTION) throw new Error("the module imports something else than functions");
  reader.leb();
  return { kind };
}

function exportEntry(reader) {
  return { name: reader.take(reader.leb()).toString(), kind: reader.byte(), index: reader.leb() };
}

/** The section with one more entry. */
function appended(section, entry) {
  const reader = new Reader(section);
  const count = reader.leb();
  return Buffer.concat([Buffer.from(leb(count + 1)), section.subarray(reader.at), Buffer.from(entry)]);
}

class Reader {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  byte() {
    this.at += 1;
    return this.bytes[this.at - 1];
  }

  leb() {
    let [value, shift, byte] = [0, 0, 0x80];
    while (byte & 0x80) {
      byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      shift += 7;
    }
    return value;
  }

  take(length) {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
}

/** An unsigned number in LEB128. */
function leb(value) {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)];
}

/** A small positive number in signed LEB128, whose last byte must leave the sign bit clear. */
function signed(value) {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >>> 7)];
}
