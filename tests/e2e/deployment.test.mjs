// The first deployment of docs/envoy.md, command by command, in a directory of its own. Only ports are others.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { parse, stringify } from "yaml";

import { envoyBinary, get, loopback, stepgateModule } from "./support/envoy.mjs";
import { startProvider } from "./support/provider.mjs";
import { assertKeepsSecrets, secret } from "./support/secrets.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The page's commands, block by block, of one section. */
async function commandsOf(heading) {
  const page = await readFile(`${ROOT}/docs/envoy.md`, "utf8");
  const section = page.slice(page.indexOf(`\n## ${heading}\n`)).split("\n## ")[1];
  return [...section.matchAll(/^```sh\n(.*?)\n```$/gms)].map(([, block]) => block);
}

async function portsOf(admin) {
  const { listener_statuses: listeners } = JSON.parse(await get(admin, "/listeners?format=json"));
  return Object.fromEntries(listeners.map(({ name, local_address: address }) => [name, address.socket_address.port_value]));
}

test("the commands of docs/envoy.md make a gate that works", async () => {
  const [build, check, start, ask, tool] = await commandsOf("First deployment");
  assert.match(tool, /^stepgate /, "these are all");
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-deployment-"));
  const upstream = await startUpstream();
  const provider = await startProvider();
  let envoy;
  const killed = () => envoy.kill("SIGKILL"); // whatever ends this process ends Envoy as well
  try {
    await cp(`${ROOT}/envoy`, `${directory}/envoy`, { recursive: true });
    await symlink(path.dirname(stepgateModule()), `${directory}/dist`, "dir");
    await symlink(envoyBinary(), `${directory}/envoy-binary`);
    const shell = async (script) => promisify(execFile)("bash", ["-euo", "pipefail", "-c", `envoy() { ./envoy-binary "$@"; }\n${script}`], { cwd: directory });

    const [make, copy, ...rest] = build.split("\n");
    assert.deepEqual([make, rest], ["make build", []], "what is tested here");
    await shell(copy);

    const file = `${directory}/gate.yaml`;
    const configuration = parse(await readFile(file, "utf8"));
    const { listeners: [listener], clusters } = configuration.static_resources;
    listener.address = loopback(0);
    configuration.admin.address = loopback(0);
    for (const { name, load_assignment: { endpoints: [{ lb_endpoints: [{ endpoint }] }] } } of clusters) {
      endpoint.address = loopback({ app: upstream.port, idp: provider.port }[name]);
    }
    const filter = listener.filter_chains[0].filters[0].typed_config.http_filters[0];
    filter.typed_config.config.configuration.value.provider.issuer = provider.issuer;
    await writeFile(file, stringify(configuration));

    assert.match((await shell(check)).stdout, /^configuration 'gate\.yaml' OK$/m);
    await assert.rejects(shell(check.replace(/^export STEPGATE_KEY.*$/m, "")), /`STEPGATE_KEY` is not set/);

    const environment = check.split("\n").filter((line) => line.startsWith("export "));
    assert.equal(environment.length, 2);
    secret("client secret", /='(.*)'/.exec(environment[0])[1]);
    assert.equal(start, "envoy -c gate.yaml");
    envoy = spawn("bash", ["-euc", `${environment.join("\n")}\nexec ./envoy-binary ${start.slice("envoy ".length)} --admin-address-path admin --use-dynamic-base-id`], {
      cwd: directory, stdio: ["ignore", "pipe", "pipe"],
    });
    process.once("exit", killed);
    let log = "";
    for (const stream of [envoy.stdout, envoy.stderr]) stream.setEncoding("utf8").on("data", (text) => { log += text; });
    const [admin, ports] = await eventually(30_000, "Envoy serves", async () => {
      const port = Number(/:(\d+)$/.exec((await readFile(`${directory}/admin`, "utf8")).trim())[1]);
      return (await get(port, "/ready")).startsWith("LIVE") && [port, await portsOf(port)];
    });

    const [page, client, counters] = ask.replaceAll(":10000", `:${ports.portal}`).replaceAll(":9901", `:${admin}`).split("\n");
    const redirect = (await shell(page)).stdout;
    assert.match(redirect, /^HTTP\/1\.1 302 /);
    assert.ok(redirect.includes(`\nlocation: ${provider.issuer}authorize?`), redirect);
    const challenge = (await shell(client)).stdout;
    assert.match(challenge, /^HTTP\/1\.1 401 /);
    assert.equal(JSON.parse(challenge.split("\r\n\r\n")[1]).reason, "token_missing");
    await eventually(10_000, "the counters have one of each", async () => {
      const { stdout } = await shell(counters);
      return ["redirect", "challenge"].every((decision) => stdout.includes(`decision=${decision}.reason=token_missing: 1\n`));
    });
    assert.equal(upstream.count, 0);
    assertKeepsSecrets(log, "the log");
  } finally {
    if (envoy) {
      envoy.kill("SIGTERM");
      if (envoy.exitCode === null && envoy.signalCode === null) await once(envoy, "close");
      process.removeListener("exit", killed);
    }
    await provider.stop();
    await upstream.stop();
    await rm(directory, { recursive: true, force: true });
  }
});

test("the commands that change rules replace the file by a rename", async () => {
  const [start, change, tell] = await commandsOf("Change rules while Envoy serves");
  assert.equal(start, "envoy -c envoy/dynamic/bootstrap.yaml");
  assert.match(tell, /filter=extension_config_discovery'$/);
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-deployment-"));
  try {
    await cp(`${ROOT}/envoy/dynamic`, directory, { recursive: true });
    const [copy, move] = change.split("\n");
    await promisify(execFile)("bash", ["-euc", `${copy}\necho '# changed' >> gate.new.yaml\n${move}\ntest ! -e gate.new.yaml`], { cwd: directory });
    assert.match(await readFile(`${directory}/gate.yaml`, "utf8"), /# changed\n$/);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
