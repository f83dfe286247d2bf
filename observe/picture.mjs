// `make dashboard`: runs the demo with people in it, an outage of the provider in the middle, and a Prometheus beside it; asks
// what grafana-dashboard.json asks, and draws its panels into dashboard.svg.

import { writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { chosen, dashboard } from "./dashboard.mjs";
import { draw } from "./draw.mjs";
import { startPrometheus } from "./prometheus.mjs";
import { startPortal } from "./traffic.mjs";

const SECONDS = 110;
const OUTAGE = [45, 75];
const STEP = 1;
const RATE_INTERVAL = "8s";

// So that what is under way ends as well, and leaves nothing behind.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

const portal = await startPortal({ refresh: "10s", maxStale: "20s" });
const prometheus = await startPrometheus({ adminUrl: portal.adminUrl, interval: "1s" });
const begun = Date.now();
const elapsed = () => (Date.now() - begun) / 1000;
try {
  await Promise.all([outage(), ...Object.values(crowds()).map(keepComing)]);
  const [start, end] = [begun / 1000 + 5, begun / 1000 + SECONDS];
  const panels = await Promise.all(dashboard.panels.map(async (panel) => ({
    ...panel,
    series: (await Promise.all(panel.targets.map(({ expr, legendFormat }) => seriesOf(expr, legendFormat, start, end)))).flat(),
  })));
  const file = fileURLToPath(new URL("dashboard.svg", import.meta.url));
  writeFileSync(file, draw({ title: dashboard.title, panels, start, end }));
  console.log(file);
} finally {
  await prometheus.stop();
  await portal.stop();
}

/** Who comes, and how long until the next of their kind, in seconds. */
function crowds() {
  const wave = (every) => () => every * (1.4 + Math.sin(elapsed() / 7));
  return {
    employees: [async () => { await portal.employee(); }, wave(0.5)],
    visitors: [async () => { await portal.newcomer(); }, wave(0.8)],
    stuck: [async () => { await portal.stuck(await portal.employee()); }, () => 9],
    scanners: [async () => { await portal.scanner(); }, () => (elapsed() > 25 && elapsed() < 35 ? 0.3 : 6)],
  };
}

async function keepComing([come, pause]) {
  while (elapsed() < SECONDS) {
    // In the outage, most of them get no further than the gate.
    await come().catch(() => {});
    await delay(1000 * pause());
  }
}

async function outage() {
  const [from, to] = OUTAGE;
  await delay(1000 * from);
  await portal.providerIs(false);
  await delay(1000 * (to - from));
  await portal.providerIs(true);
}

async function seriesOf(expression, legend, start, end) {
  const series = await prometheus.queryRange(chosen(expression, RATE_INTERVAL), start, end, STEP);
  return series.map(({ metric, values }) => ({
    name: legend.replaceAll(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? ""),
    values: values.filter(([, value]) => Number.isFinite(value)),
  }));
}
