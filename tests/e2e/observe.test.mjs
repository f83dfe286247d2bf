// What is watched: the dashboard and the alerts against a real Prometheus that scrapes a real Envoy, the access log, and the log
// in which a request is followed by its ID.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";

import { parse } from "yaml";

import { alerts, chosen, dashboard, legendLabels, partsOf } from "../../observe/dashboard.mjs";
import { program, startPrometheus } from "../../observe/prometheus.mjs";
import { startPortal } from "../../observe/traffic.mjs";
import { ROOT } from "./demo-support.mjs";
import { startEnvoy } from "./support/envoy.mjs";
import { discoveringGate, expect, inlineGate, NAVIGATION } from "./support/gate.mjs";
import { startOidc } from "./support/oidc.mjs";
import { Person } from "./support/person.mjs";
import { assertKeepsSecrets } from "./support/secrets.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const PATIENCE = 20_000;
const RATE_INTERVAL = "1m";

const yamlFile = async (name) => parse(await readFile(ROOT + name, "utf8"));
const run = (name, ...args) => promisify(execFile)(program(name), args, { cwd: ROOT });
const targets = dashboard.panels.flatMap(({ title, targets }) => targets.map(({ expr, legendFormat }) => ({
  title, legend: legendFormat, query: chosen(expr, RATE_INTERVAL),
})));

test("promtool accepts the alerts, and they fire when they should", async () => {
  assert.match((await run("promtool", "check", "rules", "observe/alerts.yaml")).stdout, /SUCCESS: 8 rules found/);
  const { stdout, stderr } = await run("promtool", "test", "rules", "observe/alerts.test.yaml");
  assert.match(stdout + stderr, /SUCCESS/);
  const tested = new Set((await yamlFile("observe/alerts.test.yaml")).tests
    .flatMap(({ alert_rule_test: cases }) => cases.filter(({ exp_alerts: expected }) => expected.length > 0))
    .map(({ alertname }) => alertname));
  assert.deepEqual([...tested].sort(), alerts.map(({ alert }) => alert).sort(), "each is seen to fire");
});

test("each alert leads to what can be done", async () => {
  const [, list] = /CODES: \[&'static str; \d+\] = \[(.*?)\];/s.exec(await readFile(`${ROOT}src/reason.rs`, "utf8"));
  const codes = new Set([...list.matchAll(/"(\w+)"/g)].map(([, code]) => code));
  for (const { alert, annotations: { runbook_url: link } } of alerts) {
    const [page, anchor] = link.replace("{{ $labels.reason }}", "amr_missing").split("#");
    if (page === "docs/troubleshooting.md") assert.ok(codes.has(anchor), `${alert}: ${anchor} is a reason code`);
    if (page === "docs/troubleshooting.md" && !existsSync(ROOT + page)) continue;
    const headings = [...(await readFile(ROOT + page, "utf8")).matchAll(/^#+ (.+)$/gm)]
      .map(([, heading]) => heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-"));
    assert.ok(headings.includes(anchor), `${alert}: ${link} is there`);
  }
});

test("the fragments are what Envoy runs with in envoy/", async () => {
  const [stats, log] = [await yamlFile("observe/envoy-stats.yaml"), await yamlFile("observe/access-log.yaml")];
  for (const name of ["envoy/envoy.yaml", "envoy/envoy-own-login.yaml"]) {
    const { static_resources: { listeners: [listener] }, stats_config: tags } = await yamlFile(name);
    assert.deepEqual(tags, stats.stats_config, name);
    const { access_log: accessLog } = listener.filter_chains[0].filters[0].typed_config;
    assert.deepEqual(accessLog, log.access_log, name);
  }
});

test("counters by rule end at a limit, and keep a rule's name as it is", async () => {
  const [, limit] = /MAX_RULE_COUNTERS: usize = (\d+);/.exec(await readFile(`${ROOT}src/host/envoy/metrics.rs`, "utf8"));
  const rules = Array.from({ length: Number(limit) + 1 }, (_, at) => ({ name: `/v1.${at}/**`, paths: ["/salary"] }));
  const envoy = await startEnvoy({ listeners: [{ name: "gate", config: inlineGate({ rules }) }], clusters: { app: 1 }, concurrency: 1 });
  try {
    await expect(envoy, "gate", {}, 302, "token_missing");
    const counters = await envoy.stats("^wasmcustom\\.stepgate_rules");
    assert.equal(counters.size, Number(limit));
    const { stats_config: { stats_tags: tags } } = await yamlFile("observe/envoy-stats.yaml");
    const regex = new RegExp(tags.find(({ tag_name: name }) => name === "rule").regex);
    assert.deepEqual([...counters.keys()].map((name) => regex.exec(name)[2]).sort(), rules.slice(0, limit).map(({ name }) => name).sort());
  } finally {
    await envoy.stop();
  }
});

describe("Prometheus, with an Envoy that people, scanners and an outage have been at", () => {
  const [envoyLog, accessLog] = [[], []];
  let portal;
  let prometheus;

  before(async () => {
    portal = await startPortal({
      refresh: "1s", maxStale: "2s",
      onLog: (line) => envoyLog.push(line),
      onAccess: (entry) => accessLog.push(entry),
    });
    prometheus = await startPrometheus({ adminUrl: portal.adminUrl, interval: "200ms" });
    // All of it twice, since the growth of a counter shows from its second value on.
    await twice(async () => {
      assert.equal((await portal.stuck(await portal.employee())).status, 403);
      await portal.scanner();
    });
    await portal.providerIs(false);
    await twice(async () => assert.match((await portal.newcomer()).text, /token_exchange_failed/));
    await eventually(PATIENCE, "the keys are too old", async () => (await portal.visitor()).status === 503);
    await twice(async () => assert.equal((await portal.visitor()).status, 503));
    await portal.providerIs(true);
    await eventually(PATIENCE, "the keys are back", async () => (await portal.visitor()).status === 302);
    await scraped();
  });
  after(async () => {
    await prometheus?.stop();
    await portal?.stop();
    assertKeepsSecrets([...envoyLog, ...accessLog.map((entry) => JSON.stringify(entry))].join("\n"), "a log of Envoy");
  });

  async function twice(happens) {
    for (const _ of [1, 2]) {
      await happens();
      await scraped();
    }
  }

  /** What has been counted by now is in Prometheus. */
  async function scraped() {
    const now = Date.now() / 1000;
    await eventually(PATIENCE, "Envoy has been scraped again", async () => {
      const [{ value }] = await prometheus.query("timestamp(up)");
      return value > now + 0.2;
    });
  }

  /** An expression names only what this Envoy exposes. */
  async function assertExposed(expression) {
    const { selectors, labels } = partsOf(expression);
    assert.ok(selectors.length > 0);
    const exposed = new Set();
    for (const selector of selectors) {
      const series = await prometheus.query(selector);
      assert.ok(series.length > 0, `nothing is \`${selector}\``);
      for (const { metric } of series) Object.keys(metric).forEach((label) => exposed.add(label));
    }
    for (const label of labels) assert.ok(exposed.has(label), `no label \`${label}\` in \`${expression}\``);
  }

  test("each query of the dashboard has data, of metrics and labels that there are", async () => {
    for (const { title, legend, query } of targets) {
      await assertExposed(query);
      const series = await prometheus.query(query);
      assert.ok(series.length > 0, `${title}: data`);
      for (const { metric, value } of series) {
        assert.ok(Number.isFinite(value), `${title}: ${value}`);
        for (const label of legendLabels(legend)) assert.ok(label in metric, `${title}: {{${label}}}`);
      }
    }
  });

  test("each alert is about metrics and labels that there are", async () => {
    for (const { expr, annotations } of alerts) {
      await assertExposed(expr);
      const { labels } = partsOf(expr);
      for (const label of legendLabels(Object.values(annotations).join())) assert.ok(labels.includes(label), `${expr}: {{${label}}}`);
    }
    const { groups: [{ rules }] } = await prometheus.ask("rules");
    assert.deepEqual(rules.map(({ name, health }) => [name, health]), alerts.map(({ alert }) => [alert, "ok"]));
  });

  test("the alerts for what has happened are on their way, and no others", async () => {
    const { alerts: active } = await prometheus.ask("alerts");
    const told = active.map(({ labels: { alertname, reason, rule } }) => [alertname, rule, reason].filter(Boolean).join(" "));
    const depend = ["StepgateKeysFailing", "StepgateLoginsFailing"]; // on how many fetches there were
    assert.deepEqual(told.filter((name) => !depend.includes(name)).sort(), [
      "StepgateReportOnly expenses amr_missing",
      "StepgateStepUpFailed",
      "StepgateUnavailable keys_unavailable",
      "StepgateUnavailable token_exchange_failed",
    ]);
  });

  test("each variable of the dashboard has values", async () => {
    const variables = dashboard.templating.list.filter(({ type }) => type === "query");
    for (const { name, definition } of variables) {
      const [, selector, label] = /^label_values\((.*), (\w+)\)$/.exec(definition);
      assert.equal(label, name);
      const values = await prometheus.ask(`label/${label}/values`, { "match[]": chosen(selector, RATE_INTERVAL) });
      assert.equal(values.length, 1, name);
    }
  });

  test("a name that Envoy does not expose is found", async () => {
    for (const [expression, complaint] of [
      ["sum(rate(stepgate_decision[1m]))", /nothing is `stepgate_decision`/],
      ['sum(rate(stepgate_decisions{decision="denied"}[1m]))', /nothing is/],
      ["sum by (rules) (rate(stepgate_rules[1m]))", /no label `rules`/],
      ['sum(rate(stepgate_decisions{outcome!="ok"}[1m]))', /no label `outcome`/],
      ["sum(rate(stepgate_decisions)", /no PromQL/],
    ]) {
      await assert.rejects(assertExposed(expression), complaint);
    }
  });

  test("the access log tells request, decision, rule and reason", () => {
    const told = accessLog.filter(({ request_id: id }) => /^[\da-f-]{36}$/.test(id))
      .map(({ path, status, stepgate_decision: decision, stepgate_rule: rule, stepgate: reason }) => (
        [path, status, decision, rule, reason].join(" ")
      ));
    for (const line of [
      "/portal.js 200   ",
      "/news 200   satisfied",
      "/news 302 redirect signed-in token_missing",
      "/callback 302 redirect signed-in login_completed",
      "/salary/payslips.json 401 challenge signed-in, payroll amr_missing",
      "/expenses 200 report expenses amr_missing",
      "/expenses 200   satisfied",
      "/callback 403 forbidden signed-in, vault step_up_failed",
      "/salary/%zz 400 bad_request signed-in path_rejected",
      "/news 503 unavailable signed-in keys_unavailable",
    ]) {
      assert.ok(told.includes(line), `${line}\nis not among\n${told.join("\n")}`);
    }
  });

  test("decisions are logged from when Envoy is told to, and no longer", async () => {
    const decisions = () => envoyLog.filter((line) => line.includes("stepgate: request"));
    const level = async (name) => {
      assert.equal((await fetch(`${portal.adminUrl}/logging?wasm=${name}`, { method: "POST" })).status, 200);
    };
    assert.deepEqual(decisions(), []);
    await level("debug");
    await eventually(PATIENCE, "decisions are logged", async () => {
      await portal.scanner();
      return decisions().length > 0;
    });
    await portal.employee();
    await eventually(PATIENCE, "a login is in both logs, by its request's ID", () => (
      accessLog.some(({ stepgate, request_id: id }) => stepgate === "login_completed"
        && decisions().some((line) => line.includes(`stepgate: request ${id}: redirect, rule signed-in, payroll: login_completed: `)))
    ));

    await level("info");
    await eventually(PATIENCE, "decisions are not logged any more", async () => {
      const before = decisions().length;
      await portal.employee();
      return decisions().length === before;
    });
  });
});

for (const version of ["newest", "oldest"]) {
  describe(`a request is followed by its ID in ${version} Envoy's log`, () => {
    let upstream;
    let oidc;
    let envoy;

    before(async () => {
      upstream = await startUpstream();
      oidc = await startOidc({ clients: [{ client_id: "post", client_secret: "another s3cret &=", token_endpoint_auth_method: "client_secret_post" }] });
      const config = discoveringGate(oidc, {
        client: { id: "post", secret: "another s3cret &=", authentication: "client_secret_post" },
        callback: { keys: [randomBytes(32).toString("base64")] },
        rules: [{ name: "payroll", paths: ["/salary/**"] }],
      });
      envoy = await startEnvoy({ version, logLevel: "debug", listeners: [{ name: "gate", config }], clusters: { app: upstream.port, idp: oidc.port } });
    });
    after(() => Promise.all([envoy, oidc, upstream].map((server) => server?.stop())));

    const identified = (id) => ({ headers: [...NAVIGATION, ["x-request-id", id]] });

    test("whatever is decided", async () => {
      const ada = new Person(envoy, "gate");
      await ada.open("/news", identified("public-1"));
      const toCallback = { until: ({ pathname }) => pathname === "/callback" };
      const answers = await ada.visit("/salary", { ...identified("step-up-1"), ...toCallback });
      await ada.open(answers.at(-1).header("location"), identified("callback-1"));
      await ada.open("/salary?month=6", identified("satisfied-1"));
      await ada.open("/salary/%zz", identified("refused-1"));
      await ada.open("/salary", identified("i".repeat(129)));
      await ada.open("/salary", identified(Buffer.from([0xe9])));
      for (const line of [
        "public-1: forward: not_protected: no rule matches",
        "step-up-1: redirect, rule payroll: token_missing: there is no ID Token",
        "callback-1: redirect, rule payroll: login_completed: the login is complete",
        "satisfied-1: forward, rule payroll: satisfied: every requirement is met",
        "refused-1: bad_request, rule payroll: path_rejected: the path cannot be read safely: it has a malformed percent-escape",
        "-: forward, rule payroll: satisfied: every requirement is met",
      ]) {
        await envoy.logged(new RegExp(`debug wasm: .*stepgate: request ${line}$`, "m"));
      }
      assert.ok(!envoy.log.includes("month=6") && !/request [iÃé]/.test(envoy.log));
    });
  });
}
