// Writes the Envoy module as OCI image layouts, in both shapes that Istio and Envoy Gateway read:
//   compat    an image; the last layer is a gzip tar that holds `plugin.wasm`
//   artifact  two layers, one of them the module as it is
// The digests follow from the module, the package's version and STEPGATE_REVISION (the commit, if it is given).

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { archive, compressed, sha256 } from './archive.mjs';
import { ROOT, cargoPackage } from './package.mjs';

const IMAGE_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const IMAGE_INDEX = 'application/vnd.oci.image.index.v1+json';
const RUNTIME_CONFIG = 'application/vnd.module.wasm.config.v1+json';

const { values } = parseArgs({
  options: {
    module: { type: 'string', default: path.join(ROOT, 'dist/stepgate.wasm') },
    output: { type: 'string', default: path.join(ROOT, 'dist/oci') },
  },
});

const wasm = await readFile(values.module);
const abi = WebAssembly.Module.exports(new WebAssembly.Module(wasm))
  .map(({ name }) => /^proxy_abi_version_(\d+)_(\d+)_(\d+)$/.exec(name)).find(Boolean)?.slice(1).join('.');
if (!abi) throw new Error(`${values.module} is no module for Envoy: it exports no ABI version`);

const { name, version, description, license } = cargoPackage();
const annotations = {
  'org.opencontainers.image.title': name,
  'org.opencontainers.image.description': description,
  'org.opencontainers.image.version': version,
  'org.opencontainers.image.licenses': license,
  'org.opencontainers.image.revision': process.env.STEPGATE_REVISION || undefined,
};

const tar = await archive([['plugin.wasm', wasm]]);
await layout('compat', {
  config: ['application/vnd.oci.image.config.v1+json', json({
    architecture: 'wasm',
    os: 'wasip1',
    config: {},
    rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(tar)}`] },
  })],
  layers: [['application/vnd.oci.image.layer.v1.tar+gzip', compressed(tar)]],
  annotations: { ...annotations, 'module.wasm.image/variant': 'compat' },
});
await layout('artifact', {
  artifactType: RUNTIME_CONFIG,
  config: ['application/vnd.oci.empty.v1+json', '{}'],
  layers: [
    [RUNTIME_CONFIG, json({ type: 'envoy_proxy', abiVersions: [abi] }), 'runtime-config.json'],
    ['application/vnd.module.wasm.content.layer.v1+wasm', wasm, 'plugin.wasm'],
  ],
  annotations,
});

/** Writes one image layout (OCI image layout specification 1.1) with one image, tagged with the version. */
async function layout(shape, { artifactType, config, layers, annotations }) {
  const directory = path.join(values.output, shape);
  await rm(directory, { recursive: true, force: true });
  await mkdir(path.join(directory, 'blobs/sha256'), { recursive: true });

  const blob = async (mediaType, content, title) => {
    const hash = sha256(content);
    await writeFile(path.join(directory, 'blobs/sha256', hash), content);
    const annotations = title && { 'org.opencontainers.image.title': title };
    return { mediaType, digest: `sha256:${hash}`, size: Buffer.byteLength(content), ...(annotations && { annotations }) };
  };

  const manifest = await blob(IMAGE_MANIFEST, json({
    schemaVersion: 2,
    mediaType: IMAGE_MANIFEST,
    artifactType,
    config: await blob(...config),
    layers: await Promise.all(layers.map((layer) => blob(...layer))),
    annotations,
  }));
  await writeFile(path.join(directory, 'index.json'), json({
    schemaVersion: 2,
    mediaType: IMAGE_INDEX,
    manifests: [{ ...manifest, artifactType, annotations: { 'org.opencontainers.image.ref.name': version } }],
  }));
  await writeFile(path.join(directory, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }));
  console.log(`${shape} ${manifest.digest}`);
}

function json(value) {
  return JSON.stringify(value);
}
