// Archives whose bytes follow from their entries alone: no times, no owners, no modes of the machine that makes them.

import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';

import tar from 'tar-stream';

/** A tar of `[name, content]`, in that order. */
export async function archive(entries) {
  const pack = tar.pack();
  for (const [name, content] of entries) pack.entry({ name, mode: 0o644, mtime: new Date(0) }, content);
  pack.finalize();
  return buffer(pack);
}

/** Compressed, with a header that names neither a time nor a system (RFC 1952 section 2.3.1). */
export function compressed(content) {
  const gzip = gzipSync(content, { level: 9 });
  gzip[9] = 255;
  return gzip;
}

export function sha256(content) {
  return createHash('sha256').update(content).digest('hex');
}
