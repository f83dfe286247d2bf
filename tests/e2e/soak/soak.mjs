// The soak: a crowd and people at a site, while its provider fails in every way, its keys change, its configuration is
// replaced and one of its VMs crashes. `soak` gives the figures, and throws when anything is not as it must be.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { stepgateModule } from "../support/envoy.mjs";
import { failedFetches, fetches } from "../support/gate.mjs";
import { connect, connectH2 } from "../support/http.mjs";
import { residentMemory, vmMemories } from "../support/memory.mjs";
import * as provide from "../support/provider.mjs";
import { KEYS, METADATA } from "../support/provider.mjs";
import { generator } from "../support/random.mjs";
import { eventually } from "../support/wait.mjs";
import { COOKIE } from "./crowd.mjs";
import { publicKeys, startSite } from "./site.mjs";
import { Traffic } from "./traffic.mjs";
import { TRAP, trapping } from "./trap.mjs";

const MEBIBYTE = 1024 * 1024;

/**
 * What a VM may need: the cache, whose 8 MiB are an estimate, what a gate needs at all, and the heads of the requests that are
 * on hold here, of up to half a mebibyte each.
 */
const MAX_VM_BYTES = 32 * MEBIBYTE;

/** How much higher a VM's memory may still get late in the flood: fragments may be in the way. */
const FLAT = MEBIBYTE;

/** How long anything may take that has no bound of its own, on a machine that is busy. */
const PATIENCE = 30_000;

/** How late an answer may be on such a machine. */
const SLACK = 1_500;

/** A gate looks for what is due once in this time. */
const TICK = 1_000;

/** A third of the flood fills the caches of both workers when there are so many requests. Then memory can be flat. */
const FILLS_CACHES = 50_000;

const RELOADS = 10;

const FAULTS = {
  "refuses connections": { begins: (provider) => provider.down(), ends: (provider) => provider.up() },
  "never answers": answering(provide.silent),
  "flaps": { begins: flap, ends: () => {} },
  "answers 500": answering(provide.status(500)),
  "one byte at a time": answering(provide.trickle(20)),
  "junk": answering(provide.document('{"keys":[null,{"kty":7}],"issuer":[')),
  "40 MiB": answering(provide.huge(40 * MEBIBYTE)),
  "resets in the middle": answering(provide.reset),
};

/**
 * @param {object} options
 * @param {number} options.requests  of the crowd; the people's come on top
 * @param {number} options.seed
 * @param {number} [options.faults]  how many of the faults
 * @param {(figures: object) => void} options.tell  called with the figures of each phase
 * @param {object} options.settings  of `provider` in the gate's configuration, in seconds: `refresh`, `timeout`,
 *   `unknown_kid_cooldown`
 */
export async function soak({ requests, seed, faults = Object.keys(FAULTS).length, settings, tell }) {
  const durations = Object.fromEntries(Object.entries(settings).map(([name, seconds]) => [name, `${seconds * 1_000}ms`]));
  const site = await startSite(durations);
  const run = new Run(site, { seed, requests, settings, tell });
  try {
    await run.all(Object.keys(FAULTS).slice(0, faults));
    return run.figures();
  } catch (error) {
    throw new Error(`seed ${seed}, ${run.traffic.phase}: ${error.message}`, { cause: error });
  } finally {
    await run.stop();
  }
}

class Run {
  #site;
  #requests;
  #settings;
  #tell;
  #sampling = true;
  #crashed = false;
  #peak = { vm: 0, process: 0 };
  #figures = {};

  constructor(site, { seed, requests, settings, tell }) {
    this.#site = site;
    this.#requests = requests;
    this.#settings = settings;
    this.#tell = tell;
    this.traffic = new Traffic(site, generator(seed));
    this.sampled = this.#sample();
    this.sampled.catch(() => {});
  }

  async all(faults) {
    const { provider } = this.#site;
    this.traffic.open();
    await this.#phase("no keys yet", 0.02, () => this.#unavailableUntil(() => provider.up()));
    await this.#flood();
    for (const name of faults) {
      await this.#phase(`provider: ${name}`, 0.16 / faults.length, () => this.#fault(FAULTS[name]));
    }
    for (const round of [1, 2]) await this.#phase(`keys rotate ${round}`, 0.03, () => this.#rotation());
    await this.#phase("requests that should crash it", 0.02, () => this.#hostilities());
    await this.#reloads();
    await this.#phase("a VM crashes", 0.02, () => this.#crash());
    await this.#phase("afterwards", 0.08, () => this.traffic.allPleased(PATIENCE));
    await this.traffic.close();
    this.#check();
    await this.#bounded();
  }

  figures() {
    return { ...this.#figures, reloads: RELOADS, shown: this.#site.app.count, tally: this.traffic.tally };
  }

  async stop() {
    this.#sampling = false;
    await this.traffic.close();
    await this.sampled.catch(() => {});
    await this.#site.stop();
  }

  /** A share of the crowd's requests while something happens; gives what that gives. */
  async #phase(name, share, act = () => {}) {
    const { traffic } = this;
    const [started, before] = [performance.now(), this.#site.fetches];
    traffic.phase = name;
    traffic.latencies = { crowd: [], people: [] };
    this.#peak = { vm: 0, process: 0 };
    const count = Math.round(share * this.#requests);
    const [outcome] = await Promise.all([act(), traffic.flood(count)]);
    this.#check();
    const memories = [...await this.#bounded()].map(([, size]) => inMebibytes(size));
    const seconds = (performance.now() - started) / 1_000;
    this.#tell({
      phase: name,
      seconds: Number(seconds.toFixed(1)),
      crowd: count,
      people: traffic.latencies.people.length,
      "p50 ms": percentile(traffic.latencies.crowd, 0.5),
      "p99 ms": percentile(traffic.latencies.crowd, 0.99),
      "people's p99 ms": percentile(traffic.latencies.people, 0.99),
      "VMs MiB": `${Math.min(...memories)}–${Math.max(...memories)}`,
      "RSS MiB": inMebibytes(this.#peak.process),
      "well after ms": outcome,
      fetches: this.#site.fetches - before,
    });
    return { seconds, fetches: this.#site.fetches - before };
  }

  /** Most of the crowd, while the provider is well: fetches are few, memory is flat after a while. */
  async #flood() {
    const parts = [];
    for (const part of [1, 2, 3]) {
      const { seconds, fetches } = await this.#phase(`flood ${part}/3`, 0.15);
      // Metadata and keys by the clock, and keys for whatever key is not known.
      const { refresh, unknown_kid_cooldown: cooldown } = this.#settings;
      const most = 2 * (seconds / refresh + 1) + seconds / cooldown + 1;
      assert.ok(fetches <= most, `${fetches} fetches in ${seconds} s`);
      parts.push(this.#peak.vm);
    }
    const [, second, third] = parts;
    const isFlat = third <= second + FLAT || this.#requests < FILLS_CACHES;
    assert.ok(isFlat, `a VM's memory is not flat: ${parts.map(inMebibytes).join(", ")} MiB`);
  }

  /** Keys are known, and nobody notices. */
  async #fault({ begins, ends }) {
    const { provider, envoy } = this.#site;
    const [failed, started] = [await envoy.sum(FAILED), performance.now()];
    const fails = envoy.until(FAILED, failed + 1, PATIENCE);
    await Promise.all([fails, begins(provider, fails)]);
    await this.traffic.allPleased(PATIENCE);
    await ends(provider);
    const ended = performance.now();
    const good = await envoy.sum(fetches("keys", "ok"));
    await envoy.until(fetches("keys", "ok"), good + 1, PATIENCE);
    return this.#within(this.#recovery(ended - started), performance.now() - ended, "the keys are fetched again");
  }

  /** Nothing is known and the provider refuses connections; then it does not. */
  async #unavailableUntil(ends) {
    const started = performance.now();
    this.traffic.excusedUntil = Infinity;
    await this.traffic.allUnavailable(PATIENCE);
    await ends();
    const ended = performance.now();
    const bound = this.#recovery(ended - started);
    this.traffic.excusedUntil = ended + bound;
    await this.traffic.allPleased(bound + PATIENCE);
    return Math.max(0, Math.round(this.traffic.last503 - ended));
  }

  /** The provider publishes new keys, signs with them, and withdraws the old ones. */
  async #rotation() {
    const { provider } = this.#site;
    const { crowd } = this.traffic;
    const [old, fresh] = [this.#site.keys, this.#site.newKeys()];
    const [before, after] = [crowd.token(), crowd.token({ keys: fresh })];
    provider.keys = [...publicKeys(fresh), ...publicKeys(old)];
    const published = performance.now();
    await this.#answersWith(200, after);
    const took = performance.now() - published;
    const { unknown_kid_cooldown: cooldown, timeout } = this.#settings;
    this.#within((cooldown + timeout) * 1_000 + TICK + SLACK, took, "a new key is taken");
    this.#site.keys = fresh;
    this.traffic.renewTokens();
    await this.traffic.allPleased(PATIENCE);
    provider.keys = publicKeys(fresh);
    await this.#answersWith(302, before);
    return Math.round(took);
  }

  /** The configuration is replaced again and again: another rule, another VM. Twice the provider is down meanwhile. */
  async #reloads() {
    const { envoy, provider } = this.#site;
    const before = { vms: await envoy.sum(VMS), memory: this.#peak.vm };
    for (let number = 1; number <= RELOADS; number += 1) {
      const isDown = number % 5 === 0;
      await this.#phase(`reload ${number}${isDown ? ", provider down" : ""}`, 0.02, async () => {
        const page = `/reloaded-${number}`;
        const rules = [...this.#site.changes.rules, { paths: [page], require: { amr: `reload-${number}` } }];
        const reloads = () => this.#site.reload({ rules, ...(number % 2 && { vmId: `stepgate-${number}` }) });
        if (!isDown) {
          const started = performance.now();
          await reloads();
          await this.#answersWith(302, this.traffic.crowd.token(), page);
          return Math.round(performance.now() - started);
        }
        await provider.down();
        this.traffic.excusedUntil = Infinity;
        await reloads();
        return this.#unavailableUntil(() => provider.up());
      });
    }
    await eventually(PATIENCE, "the VMs of replaced listeners have ended", async () => (await envoy.sum(VMS)) <= before.vms);
    const memory = Math.max(...(await this.#bounded()).values());
    const told = `${inMebibytes(memory)} MiB in a VM after the reloads, ${inMebibytes(before.memory)} before`;
    assert.ok(memory <= before.memory + FLAT, told);
  }

  /** One VM traps; a new one takes over, and the other worker's people notice nothing. */
  async #crash() {
    const { envoy } = this.#site;
    const directory = await mkdtemp(path.join(tmpdir(), "stepgate-soak-"));
    const file = path.join(directory, "trapping.wasm");
    try {
      await writeFile(file, trapping(await readFile(stepgateModule())));
      await this.#site.reload({ module: file });
      await this.traffic.allPleased(PATIENCE);
      this.#assertNoTrap();

      const started = performance.now();
      const crash = { cutOff: 0 };
      Object.assign(this.traffic, { crash, excusedUntil: Infinity });
      this.#crashed = true;
      const fields = TRAP - [":authority", ":path", ":method", ":scheme", "x-forwarded-proto", "x-request-id"].length;
      const headers = Array.from({ length: fields }, (_, at) => [`x-${at}`, "1"]);
      const connection = await connect(this.#site.port);
      await connection.request({ path: "/public", headers }).catch(() => {});
      connection.close();
      await envoy.logged(/Function: proxy_on_request_headers failed/, PATIENCE);
      await envoy.until("^wasm\\..*vm_reload_success$", 1, PATIENCE);
      const reloaded = performance.now();
      this.traffic.excusedUntil = reloaded + SLACK;
      await this.traffic.allPleased(PATIENCE);
      this.traffic.crash = undefined;
      crash.newVm = Math.round(reloaded - started);
      crash.last503 = Math.max(0, Math.round(this.traffic.last503 - started));
      this.#figures.crash = crash;
      await this.#site.reload({ module: undefined });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
    return this.#figures.crash.last503;
  }

  /** Whatever might make a VM trap, on a listener that lets it through to the VM which serves everybody else. */
  async #hostilities() {
    const { provider, envoy } = this.#site;
    const port = envoy.port("wide");
    const token = () => ["cookie", `${COOKIE}=${this.traffic.crowd.token().text}`];
    const unknown = () => this.traffic.crowd.token({ header: { kid: this.traffic.crowd.noise(20) } }).text;
    const many = (count) => Array.from({ length: count }, (_, at) => [`x-${at}`, "1"]);
    const requests = [
      { headers: many(1_030) }, { headers: [token(), ...many(4_900)] }, { headers: [["x-long", "1".repeat(2 * MEBIBYTE)]] },
      { headers: Array.from({ length: 100 }, () => ["cookie", "a=".repeat(30_000)]) },
      { headers: [["cookie", "x=;".repeat(500_000)]] }, { headers: [["referer", "\xff".repeat(MEBIBYTE)], token()] },
      { path: `/salary/${"%2525".repeat(20_000)}` }, { path: `/salary/${"/..".repeat(100_000)}` },
      { path: `/salary/${"\\;/%2e".repeat(60_000)}` },
      { path: "/callback?state=" + "x".repeat(MEBIBYTE) }, { path: "/callback?step_up=" + "A".repeat(MEBIBYTE) },
      { method: "POST", path: "/callback", headers: [FORM], body: "state=".repeat(200_000) },
      { method: "POST", headers: [token()], chunks: ["a", "b"], trailers: many(50) },
      { host: "\xff".repeat(1_000) }, { host: "a".repeat(MEBIBYTE) }, { headers: [["x", "\xff\xfe"], ["cookie", "\xff\xfe"]] },
    ];
    for (const request of requests) {
      const connection = await connect(port);
      await connection.request({ path: "/salary/hostile", ...request }).catch(() => {});
      connection.close();
    }
    // Requests on hold that go away, each on a big head and together more than a gate holds, while the provider keeps them waiting.
    FAULTS["never answers"].begins(provider);
    const session = await connectH2(port);
    const streams = Array.from({ length: 90 }, (_, at) => session.open({
      ...(at % 2 && { method: "POST", body: "x".repeat(at * 1_000), ends: at % 3 > 0 }),
      path: "/salary/hold",
      headers: { cookie: [`${COOKIE}=${unknown()}`], referer: "https://app.example.com/" + "r".repeat(200_000) },
    }));
    const asked = await envoy.sum(ASKED_WIDE);
    const held = Array.from({ length: 150 }, async () => {
      const connection = await connect(port);
      const referer = ["referer", `https://app.example.com/${"r".repeat(500_000)}`];
      connection.write(headOf({ headers: [["cookie", `${COOKIE}=${unknown()}`], referer] }));
      return connection;
    });
    await envoy.until(ASKED_WIDE, asked + held.length, PATIENCE);
    streams.forEach((stream) => stream.reset());
    for (const connection of await Promise.all(held)) connection.reset();
    session.close();
    // The configuration changes while requests are on hold: the new gate knows no keys, and gets none either.
    this.traffic.excusedUntil = Infinity;
    await this.#site.reload({ rules: [{ paths: ["/while-on-hold"] }] });
    return this.#unavailableUntil(() => FAULTS["never answers"].ends(provider));
  }

  /** A token gets this status, on a page and on either worker. */
  async #answersWith(status, { text }, page = "/salary/probe") {
    let inARow = 0;
    await eventually(PATIENCE, `${status} for a token`, async () => {
      const connection = await connect(this.#site.port);
      const asked = connection.request({ path: page, headers: [["cookie", `${COOKIE}=${text}`]] });
      const answer = await asked.finally(() => connection.close());
      inARow = answer.status === status ? inARow + 1 : 0;
      return inARow >= 12;
    });
  }

  /** After an outage the wait for the next attempt is as long as the outage was, or until the next refresh. */
  #recovery(outage) {
    const { refresh, timeout } = this.#settings;
    return Math.min(outage + TICK, refresh * 1_000) + 2 * timeout * 1_000 + TICK + SLACK;
  }

  #within(bound, took, what) {
    assert.ok(took <= bound, `${what} after ${Math.round(took)} ms, not ${Math.round(bound)}`);
    return Math.round(took);
  }

  /** Nothing has gone wrong so far. */
  #check() {
    assert.deepEqual(this.traffic.failures, []);
    assert.deepEqual(this.#site.app.intruders, [], "protected pages were shown to");
    this.#assertNoTrap();
  }

  #assertNoTrap() {
    if (!this.#crashed) this.#site.envoy.assertNoTrap();
  }

  async #bounded() {
    const memories = await this.#measure();
    for (const size of memories.values()) assert.ok(size <= MAX_VM_BYTES, `${inMebibytes(size)} MiB in a VM`);
    return memories;
  }

  async #sample() {
    while (this.#sampling) {
      await this.#measure();
      await pause(250);
    }
  }

  async #measure() {
    const { pid } = this.#site.envoy;
    const memories = await vmMemories(pid);
    this.#peak.vm = Math.max(this.#peak.vm, ...memories.values());
    this.#peak.process = Math.max(this.#peak.process, await residentMemory(pid));
    return memories;
  }
}

const FORM = ["content-type", "application/x-www-form-urlencoded"];
const FAILED = failedFetches("(keys|metadata)");
const ASKED_WIDE = "^http\\.wide\\.downstream_rq_total$";
const VMS = "^wasm\\.envoy\\.wasm\\.runtime\\.v8\\.active$";

/** A fault in how the provider answers. */
function answering(behaviour) {
  return {
    begins: (provider) => [KEYS, METADATA].forEach((document) => provider.answers(document, behaviour)),
    ends: (provider) => [KEYS, METADATA].forEach((document) => provider.answers(document, provide.normal)),
  };
}

/** Down and up again, in quick succession, until that has been noticed. */
async function flap(provider, noticed) {
  let isNoticed = false;
  noticed.finally(() => (isNoticed = true)).catch(() => {});
  for (let round = 0; round < 5 || !isNoticed; round += 1) {
    await provider.down();
    await pause(300);
    await provider.up();
    await pause(100);
  }
}

function headOf({ headers }) {
  const fields = [["host", "app.example.com"], ...headers].map((field) => `${field.join(": ")}\r\n`);
  return Buffer.from(`GET /salary/hold HTTP/1.1\r\n${fields.join("")}\r\n`, "latin1");
}

function percentile(numbers, share) {
  const sorted = Float64Array.from(numbers).sort();
  return Number((sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(1));
}

function inMebibytes(bytes) {
  return Number((bytes / MEBIBYTE).toFixed(1));
}
