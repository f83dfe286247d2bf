// For the tests of what is packaged.

import { createHash } from "node:crypto";
import { cp, mkdir, readFile, readdir, symlink } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

const OTHER_DAY = `
  process.umask(0o077);
  const day = Date.now() + 400 * 24 * 60 * 60 * 1000;
  globalThis.Date = class extends Date {
    constructor(...given) { super(...(given.length ? given : [day])); }
    static now() { return day; }
  };
`;

/** Environment variables with which a program of Node.js, and those that it starts, live on another day and another machine. */
export const elsewhere = {
  NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(OTHER_DAY)}`,
  TZ: "Pacific/Kiritimati",
  LC_ALL: "C",
};

/** Another checkout, as far as packaging needs it. */
export async function checkoutAt(directory) {
  await mkdir(directory);
  for (const name of ["tools", "src", "Cargo.toml", "Cargo.lock"]) {
    await cp(path.join(ROOT, name), path.join(directory, name), { recursive: true });
  }
  await symlink(path.join(ROOT, "node_modules"), path.join(directory, "node_modules"));
}

/** The files in a directory and below: digests by name. */
export async function files(directory) {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const found = entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  const digests = await Promise.all(found.sort().map(async (file) => {
    const digest = createHash("sha256").update(await readFile(file)).digest("hex");
    return [path.relative(directory, file), digest];
  }));
  return Object.fromEntries(digests);
}
