// Collects what was built (`make build edge cli oci`) into a directory, with the crates that are in it (CycloneDX) and the
// digests of all files. The same inputs give the same files.

import { execFileSync } from 'node:child_process';
import { copyFile, cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

import { archive, sha256 } from './archive.mjs';
import { ROOT, cargoPackage } from './package.mjs';

const { values } = parseArgs({
  options: {
    dist: { type: 'string', default: path.join(ROOT, 'dist') },
    output: { type: 'string', default: path.join(ROOT, 'dist/release') },
    cyclonedx: { type: 'string', default: path.join(ROOT, '.tools/bin/cargo-cyclonedx') },
  },
});
const input = (name) => path.join(values.dist, name);
const output = (name) => path.join(values.output, name);

const NEEDED = {
  'stepgate.wasm': 'make build',
  'edge/package.json': 'make edge',
  stepgate: 'make cli',
  'oci/compat/index.json': 'make oci',
  'oci/artifact/index.json': 'make oci',
};
const missing = Object.entries(NEEDED).filter(([name]) => !existsSync(input(name)));
for (const [name, target] of missing) console.error(`${input(name)} is missing: \`${target}\` makes it`);
if (missing.length > 0) process.exit(1);

const { name, version } = cargoPackage();
const host = run('rustc', ['--print', 'host-tuple']).trim();
const artifacts = [
  { file: `${name}-${version}.wasm`, target: 'wasm32-wasip1' },
  { file: `${name}-edge-${version}.tgz`, target: 'wasm32-unknown-unknown' },
  { file: `${name}-${version}-${host}`, target: host },
];
const [module, edge, tool] = artifacts.map(({ file }) => file);

await rm(values.output, { recursive: true, force: true });
await mkdir(values.output, { recursive: true });
await copyFile(input('stepgate.wasm'), output(module));
await copyFile(input('stepgate'), output(tool));
for (const shape of ['compat', 'artifact']) {
  await writeFile(output(`${name}-${version}-oci-${shape}.tar`), await archive(await contents(input(`oci/${shape}`))));
}
const scratch = await mkdtemp(path.join(tmpdir(), 'stepgate-release-'));
try {
  const options = ['--json', '--ignore-scripts', '--pack-destination', scratch];
  const [{ filename }] = JSON.parse(run('npm', ['pack', path.resolve(input('edge')), ...options]));
  await copyFile(path.join(scratch, filename), output(edge));
  for (const { file, target } of artifacts) await writeFile(output(`${file}.cdx.json`), await billOfMaterials(target));
} finally {
  await rm(scratch, { recursive: true, force: true });
}

const files = (await readdir(values.output)).sort();
const sums = await Promise.all(files.map(async (file) => `${sha256(await readFile(output(file)))}  ${file}\n`));
await writeFile(output('SHA256SUMS'), sums.join(''));
process.stdout.write(sums.join(''));

/** The files of a directory and below, as entries of an archive. */
async function contents(directory) {
  const found = await readdir(directory, { recursive: true, withFileTypes: true });
  const paths = found.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  return Promise.all(paths.sort().map(async (file) => [path.relative(directory, file), await readFile(file)]));
}

/** The crates that are compiled for a target. */
async function billOfMaterials(target) {
  // It is written beside the manifest, wherever that is.
  const copy = path.join(scratch, target);
  await mkdir(copy);
  for (const part of ['Cargo.toml', 'Cargo.lock', 'src']) {
    await cp(path.join(ROOT, part), path.join(copy, part), { recursive: true });
  }
  const options = ['--format', 'json', '--spec-version', '1.5', '--target', target, '--override-filename', 'bom', '--quiet'];
  // With this variable there is no random serial number.
  run(values.cyclonedx, ['cyclonedx', '--manifest-path', path.join(copy, 'Cargo.toml'), ...options], { SOURCE_DATE_EPOCH: '0' });
  const text = (await readFile(path.join(copy, 'bom.json'), 'utf8'))
    .replaceAll(`path+${pathToFileURL(copy)}#`, 'pkg:cargo/')
    .replaceAll('?download_url=file://.', '');

  // It has what the features of dev-dependencies bring in as well; cargo itself tells what is compiled.
  const tree = run('cargo', [
    'tree', '--manifest-path', path.join(ROOT, 'Cargo.toml'), '--locked', '--target', target,
    '--edges', 'no-dev', '--prefix', 'none', '--format', '{p}',
  ]);
  const crates = new Set(tree.split('\n').map((line) => line.split(' ', 2).join(' ')));
  const compiled = (component) => crates.has(`${component.name} v${component.version}`);

  const { metadata: { timestamp, ...metadata }, components, dependencies, ...bill } = JSON.parse(text);
  const kept = components.filter(compiled);
  const references = new Set([metadata.component, ...kept].map((component) => component['bom-ref']));
  return `${JSON.stringify({
    ...bill,
    metadata,
    components: kept,
    dependencies: dependencies.filter(({ ref }) => references.has(ref)).map(({ dependsOn, ...dependency }) => ({
      ...dependency, ...(dependsOn && { dependsOn: dependsOn.filter((ref) => references.has(ref)) }),
    })),
  }, null, 2)}\n`;
}

function run(program, given, environment = {}) {
  const options = { encoding: 'utf8', env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'inherit'] };
  return execFileSync(program, given, options);
}
