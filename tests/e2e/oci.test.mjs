// The module as an OCI image, in both shapes: the same digests wherever and whenever it is packaged, pushed with the commands of
// docs/packaging.md to a real registry, found there as Istio and Envoy Gateway find it, and run by real Envoy.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readFile, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";

import tar from "tar-stream";

import { startEnvoy, stepgateModule } from "./support/envoy.mjs";
import { assertHealthy, expect, inlineGate, NAVIGATION } from "./support/gate.mjs";
import { checkoutAt, elsewhere, files } from "./support/packaging.mjs";
import { startUpstream } from "./support/upstream.mjs";

const run = promisify(execFile);

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const SHAPES = ["compat", "artifact"];
const ENVIRONMENT = { ...process.env, STEPGATE_REVISION: "" };

let directory;
let layouts;
before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "stepgate-oci-"));
  layouts = path.join(directory, "dist/oci");
  await writeLayouts(layouts);
});
after(() => rm(directory, { recursive: true, force: true }));

describe("the layouts", () => {
  test("are the same on another day, in another checkout, for another user", async () => {
    const checkout = path.join(directory, "checkout");
    const module = path.join(checkout, "dist/stepgate.wasm");
    await checkoutAt(checkout);
    await mkdir(path.dirname(module));
    await copyFile(stepgateModule(), module);
    await utimes(module, 1, 1);
    await run(process.execPath, ["tools/oci.mjs"], { cwd: checkout, env: { ...ENVIRONMENT, ...elsewhere } });
    assert.deepEqual(await files(path.join(checkout, "dist/oci")), await files(layouts));
  });

  test("have what their descriptors say, and nothing else", async () => {
    for (const shape of SHAPES) {
      const { index, manifest } = await layout(shape);
      const [image] = index.manifests;
      const named = [image, manifest.config, ...manifest.layers];
      for (const { digest, size } of named) {
        const blob = await blobOf(shape, digest);
        assert.equal(sha256(blob), digest);
        assert.equal(blob.length, size);
      }
      const blobs = await readdir(path.join(layouts, shape, "blobs/sha256"));
      assert.deepEqual(blobs.sort(), named.map(({ digest }) => digest.slice("sha256:".length)).sort());
      assert.equal(image.mediaType, MANIFEST);
      assert.equal(manifest.mediaType, MANIFEST);
      const versionFile = await readFile(path.join(layouts, shape, "oci-layout"), "utf8");
      assert.deepEqual(JSON.parse(versionFile), { imageLayoutVersion: "1.0.0" });
    }
    const { manifest } = await layout("compat");
    const { rootfs } = JSON.parse(await blobOf("compat", manifest.config.digest));
    const uncompressed = gunzipSync(await blobOf("compat", manifest.layers.at(-1).digest));
    assert.deepEqual(rootfs, { type: "layers", diff_ids: [sha256(uncompressed)] });
  });

  test("tell the package's name, version and licence, and the commit only when it is given", async () => {
    const options = ["--no-deps", "--format-version", "1", "--locked", "--offline"];
    const { stdout } = await run("cargo", ["metadata", ...options], { cwd: ROOT });
    const [{ version, license, description }] = JSON.parse(stdout).packages;
    const told = path.join(directory, "told");
    await writeLayouts(told, { STEPGATE_REVISION: "0123abc" });
    for (const shape of SHAPES) {
      const { index, manifest } = await layout(shape);
      assert.deepEqual(index.manifests.map(({ annotations }) => annotations), [{ "org.opencontainers.image.ref.name": version }]);
      const { "module.wasm.image/variant": variant, ...annotations } = manifest.annotations;
      assert.equal(variant, shape === "compat" ? "compat" : undefined);
      assert.deepEqual(annotations, {
        "org.opencontainers.image.title": "stepgate",
        "org.opencontainers.image.description": description,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": license,
      });
      const { manifest: withCommit } = await layout(shape, told);
      assert.deepEqual(withCommit, {
        ...manifest, annotations: { ...manifest.annotations, "org.opencontainers.image.revision": "0123abc" },
      });
    }
  });
});

describe("in a registry", () => {
  let registry;
  let upstream;
  let envoy;
  const pushed = {};

  before(async () => {
    registry = await startRegistry(path.join(directory, "registry"));
    const page = await readFile(path.join(ROOT, "docs/packaging.md"), "utf8");
    const commands = page.split("\n").filter((line) => line.startsWith("skopeo "));
    for (const shape of SHAPES) {
      const found = commands.filter((line) => line.includes(` oci:dist/oci/${shape} `));
      assert.equal(found.length, 1, `one command pushes \`${shape}\``);
      const [, repository, tag] = / docker:\/\/registry\.example\.com\/(\S+):(\S+)$/.exec(found[0]);
      pushed[shape] = { repository, tag };
    }
    for (const command of commands) await skopeo(registry, command);
  });
  after(async () => {
    await envoy?.stop();
    await upstream?.stop();
    await registry?.stop();
  });

  test("has the digests of the layouts", async () => {
    for (const shape of SHAPES) {
      const { repository, tag } = pushed[shape];
      const { index } = await layout(shape);
      assert.equal((await registry.manifest(repository, tag)).digest, index.manifests[0].digest);
    }
  });

  test("tells the digest by the documented command", async () => {
    const page = await readFile(path.join(ROOT, "docs/packaging.md"), "utf8");
    const [command] = page.split("\n").filter((line) => line.startsWith("skopeo inspect "));
    const { index } = await layout("compat");
    assert.equal((await skopeo(registry, command)).trim(), index.manifests[0].digest);
  });

  test("Istio and Envoy Gateway find the module, and Envoy runs it", async () => {
    const listeners = [];
    for (const shape of SHAPES) {
      const { index } = await layout(shape);
      const found = await moduleOf(registry, pushed[shape].repository, index.manifests[0].digest);
      assert.equal(found.shape, shape);
      assert.ok(found.module.equals(await readFile(stepgateModule())), "the module's bytes");
      const file = path.join(directory, `${shape}.wasm`);
      await writeFile(file, found.module);
      listeners.push({ name: shape, config: inlineGate(), module: file, vmId: shape });
    }
    upstream = await startUpstream();
    envoy = await startEnvoy({ listeners, clusters: { app: upstream.port } });
    for (const shape of SHAPES) await expect(envoy, shape, { headers: NAVIGATION }, 302, "token_missing");
    for (const shape of SHAPES) await assertHealthy(envoy, shape, upstream);
  });
});

async function writeLayouts(output, environment = {}) {
  const options = ["--module", stepgateModule(), "--output", output];
  await run(process.execPath, [path.join(ROOT, "tools/oci.mjs"), ...options], { env: { ...ENVIRONMENT, ...environment } });
}

async function layout(shape, parent = layouts) {
  const index = JSON.parse(await readFile(path.join(parent, shape, "index.json"), "utf8"));
  assert.equal(index.manifests.length, 1);
  return { index, manifest: JSON.parse(await blobOf(shape, index.manifests[0].digest, parent)) };
}

function blobOf(shape, digest, parent = layouts) {
  return readFile(path.join(parent, shape, "blobs", digest.replace(":", "/")));
}

function sha256(content) {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}

/**
 * The module of an image by the rules of Istio's pkg/wasm/imagefetcher.go and Envoy Gateway's internal/wasm/imagefetcher.go:
 * in the last layer, where that is a compressed tar; otherwise one of exactly two layers, by its media type.
 */
async function moduleOf(registry, repository, digest) {
  const { manifest: { layers } } = await registry.manifest(repository, digest);
  const { mediaType, digest: last } = layers.at(-1);
  if (mediaType === "application/vnd.oci.image.layer.v1.tar+gzip") {
    const entries = Readable.from([gunzipSync(await registry.blob(repository, last))]).pipe(tar.extract());
    for await (const entry of entries) {
      const module = await buffer(entry);
      if (path.basename(entry.header.name) === "plugin.wasm") return { shape: "compat", module };
    }
  }
  assert.equal(layers.length, 2, "an artifact has two layers");
  const layer = layers.find((one) => one.mediaType === "application/vnd.module.wasm.content.layer.v1+wasm");
  assert.ok(layer, "an artifact has a layer with the module");
  return { shape: "artifact", module: await registry.blob(repository, layer.digest) };
}

/** Runs a documented command as it stands, but for the registry's name. */
async function skopeo(registry, command) {
  const line = command.replaceAll("registry.example.com", registry.host);
  const { stdout } = await run("/bin/sh", ["-c", line], { cwd: directory, env: { ...process.env, HOME: registry.home } });
  return stdout;
}

/** Starts Debian's registry on loopback, on a port that the kernel picks. */
async function startRegistry(home) {
  await mkdir(home, { recursive: true });
  const configuration = path.join(home, "config.json");
  await writeFile(configuration, JSON.stringify({
    version: "0.1",
    storage: { filesystem: { rootdirectory: path.join(home, "storage") } },
    http: { addr: "127.0.0.1:0", secret: "stepgate" },
  }));
  const child = spawn("docker-registry", ["serve", configuration], { stdio: ["ignore", "ignore", "pipe"] });
  const end = () => child.kill("SIGKILL");
  process.once("exit", end);
  const ended = new Promise((resolve) => child.once("close", resolve)).then(() => process.removeListener("exit", end));
  let log = "";
  const host = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => reject(new Error(`the registry ended (${code}):\n${log}`)));
    createInterface({ input: child.stderr }).on("line", (line) => {
      log += `${line}\n`;
      const [, address] = /msg="listening on (127\.0\.0\.1:\d+)"/.exec(line) ?? [];
      if (address) resolve(address);
    });
  });
  // Lets skopeo speak HTTP to it.
  await mkdir(path.join(home, ".config/containers"), { recursive: true });
  await writeFile(path.join(home, ".config/containers/registries.conf"), `[[registry]]\nlocation = "${host}"\ninsecure = true\n`);

  const get = async (target, accept = "*/*") => {
    const response = await fetch(`http://${host}/v2/${target}`, { headers: { accept } });
    assert.equal(response.status, 200, target);
    return Buffer.from(await response.arrayBuffer());
  };
  return {
    home,
    host,
    async manifest(repository, reference) {
      const content = await get(`${repository}/manifests/${reference}`, MANIFEST);
      return { digest: sha256(content), manifest: JSON.parse(content) };
    },
    async blob(repository, digest) {
      const content = await get(`${repository}/blobs/${digest}`);
      assert.equal(sha256(content), digest);
      return content;
    },
    async stop() {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
