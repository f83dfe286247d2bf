// The results as Markdown and as a plot.

import { median } from "./statistics.mjs";

const MEBIBYTE = 1024 ** 2;

export function markdown(results) {
  const { machine, rounds, seconds, situations, targets, latency, starts, rest, flood, size } = results;
  const fastest = situations[0].rate.median;
  return [
    "# Benchmark",
    `Envoy ${machine.envoy}, one worker on one core, ${machine.processor}. ${rounds} rounds of ${seconds} s, medians, in parentheses the`,
    `least and the greatest; ratios are of two runs of the same round. ${machine.headers} request headers, an RS256 token of ${machine.token} bytes.`,
    "Where Envoy has less than about 95 % of its core, something else runs on this machine: then CPU times tell more than rates.",
    "",
    "## Targets",
    table(["", "reached", "target", "", "by CPU time"], targets.map((row) => [
      row.title,
      `${number(row.median, row.unit)}${row.min === row.max ? "" : ` (${number(row.min, row.unit)} – ${number(row.max, row.unit)})`}`,
      bound(row),
      row.least === undefined && row.most === undefined ? "" : row.reached ? "yes" : "**MISSED**",
      row.byCpu === undefined ? "" : number(row.byCpu, row.unit),
    ])),
    "",
    "## Requests per second",
    table(["", "requests/s", "of no filter", "µs of CPU each", "signatures each", "Envoy's core"], situations.map((row) => [
      row.title,
      `${thousands(row.rate.median)} (${thousands(row.rate.min)} – ${thousands(row.rate.max)})`,
      percent(row.rate.median / fastest),
      median(row.cpus).toFixed(1),
      row.token === "new" ? row.checked.toFixed(2) : "",
      percent(row.busy),
    ])),
    "",
    `## Latency at ${thousands(latency.rate)} requests/s, token seen before`,
    table(["", "p50, µs", "p99, µs"], ["gate_seen", "jwt_seen"].map((id) => [
      situations.find((row) => row.id === id).title,
      ...["p50", "p99"].map((share) => thousands(median(latency[id].map((run) => run[share])))),
    ])),
    "",
    "## Start and memory",
    table(["", "gate, 10 rules, 4 keys", "filter that does nothing"], [
      ["from Envoy's start to its first answer, ms", ...["gate", "noop"].map((name) => median(starts[name].map((start) => start.wall)).toFixed(0))],
      ["Envoy's CPU time until then, ms", ...["gate", "noop"].map((name) => median(starts[name].map((start) => start.cpu)).toFixed(0))],
      ["a further worker at rest, MiB", ...["gate", "noop"].map((name) => (rest[name] / MEBIBYTE).toFixed(2))],
      ["of it linear memory, MiB", (rest.linear / MEBIBYTE).toFixed(2), ""],
    ]),
    "",
    "## Flood of valid tokens that come once, while 200 others are in use",
    table(["once : in use", "tokens seen once", "requests in use", "of them checked anew", "linear memory after a tenth, MiB", "in the end, MiB"], flood.map((row) => [
      `${row.strangers} : 1`,
      thousands(row.total),
      thousands(row.inUse),
      `${thousands(row.checked)} (${(100 * row.checked / row.inUse).toFixed(2)} %)`,
      (row.linear[Math.floor(row.linear.length / 10)] / MEBIBYTE).toFixed(1),
      (row.linear.at(-1) / MEBIBYTE).toFixed(1),
    ])),
    "",
    "## Size of the module",
    `${thousands(size.bytes)} bytes, ${thousands(size.gzip)} with gzip.`,
    "",
    table(["section", "bytes"], size.sections.slice(0, 4).map(([name, bytes]) => [name, thousands(bytes)])),
    "",
    table(["code, by crate", "bytes"], size.crates.slice(0, 14).map(([name, bytes]) => [name, thousands(bytes)])),
    "",
  ].join("\n");
}

/** Bars for the rates, with the least and the greatest, and bars for the ratios, with a tick where the target is. */
export function plot({ situations, targets, machine, rounds, seconds }) {
  const [left, width, line] = [470, 420, 26];
  const ratios = targets.filter(({ unit }) => unit === "×");
  const below = 96 + situations.length * line;
  const height = below + 78 + ratios.length * line;
  const rateScale = (rate) => (width * rate) / Math.max(...situations.map(({ rate }) => rate.max));
  // Room for the targets behind the bars.
  const ratioScale = (ratio) => (0.75 * width * ratio) / Math.max(...ratios.map(({ least, most, max }) => Math.max(least ?? most, max)));
  const bar = (y, title, length, colour, value, [from, to], end = to) => [
    text(left - 12, y + 14, title, "end"),
    `<rect x="${left}" y="${y + 3}" width="${length.toFixed(1)}" height="15" fill="${colour}"/>`,
    `<path d="M${(left + from).toFixed(1)} ${y + 10.5}H${(left + to).toFixed(1)}" stroke="#1f2328" stroke-width="1.5"/>`,
    text(left + Math.max(length, to, end) + 10, y + 14, value),
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 ${height}" width="1000" height="${height}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">`,
    `<rect width="1000" height="${height}" fill="#ffffff"/>`,
    text(24, 34, "Requests per second of one worker", "start", 'font-size="18" font-weight="600"'),
    text(24, 56, `Envoy ${machine.envoy}, ${machine.processor}; medians of ${rounds} rounds of ${seconds} s, the line: least to greatest`, "start", 'fill="#59636e"'),
    ...situations.flatMap(({ id, title, rate }, at) =>
      bar(76 + at * line, title, rateScale(rate.median), id.startsWith("gate") ? "#2f6f9f" : "#b5bcc4", thousands(rate.median), [rateScale(rate.min), rateScale(rate.max)])),
    text(24, below + 34, "Ratios", "start", 'font-size="18" font-weight="600"'),
    text(24, below + 54, "The tick is the target: at least, and for latency at most", "start", 'fill="#59636e"'),
    ...ratios.flatMap((row, at) => {
      const y = below + 66 + at * line;
      const target = left + ratioScale(row.least ?? row.most);
      return [
        ...bar(y, row.title.replace(/^p99 latency at half load, token seen before/, "p99 at half load"), ratioScale(row.median), row.reached ? "#3f8f5b" : "#c4553b",
          `${number(row.median, row.unit)}  (target ${bound(row)})`, [ratioScale(row.min), ratioScale(row.max)], target - left),
        `<path d="M${target.toFixed(1)} ${y - 1}V${y + 22}" stroke="#1f2328" stroke-width="2.5"/>`,
      ];
    }),
    "</svg>",
    "",
  ].join("\n");
}

function table(head, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, at) => (at === 0 ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

function bound({ least, most, unit }) {
  if (least !== undefined) return `≥ ${number(least, unit)}`;
  return most === undefined ? "" : `≤ ${number(most, unit)}`;
}

function number(value, unit) {
  return `${value.toFixed(unit === "ms" ? 0 : 2)} ${unit}`;
}

function thousands(value) {
  return Math.round(value).toLocaleString("en");
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function text(x, y, content, anchor = "start", more = "") {
  const escaped = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}" ${more}>${escaped}</text>`;
}
