// What Cargo.toml says of the package.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** `{ name, version, description, license, … }` */
export function cargoPackage() {
  const manifest = fileURLToPath(new URL('../Cargo.toml', import.meta.url));
  const options = ['--manifest-path', manifest, '--no-deps', '--format-version', '1', '--locked', '--offline'];
  return JSON.parse(execFileSync('cargo', ['metadata', ...options], { encoding: 'utf8' })).packages[0];
}
