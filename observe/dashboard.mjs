// What the dashboard and the alerts ask Prometheus, for the tests and for the picture.

import { readFileSync } from "node:fs";

import { parser } from "@prometheus-io/lezer-promql";
import { parse } from "yaml";

const read = (name) => readFileSync(new URL(name, import.meta.url), "utf8");

export const dashboard = JSON.parse(read("grafana-dashboard.json"));
export const { groups } = parse(read("alerts.yaml"));
export const alerts = groups.flatMap(({ rules }) => rules);

/** An expression as Grafana sends it, with everything chosen. */
export const chosen = (expression, rateInterval) => expression
  .replaceAll("$__rate_interval", rateInterval)
  .replaceAll(/\$(job|instance)\b/g, ".*");

/** The label that `{{…}}` stands for, each time, in a legend or an annotation's text. */
export const legendLabels = (legend) => [...legend.matchAll(/\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}/g)].map(([, label]) => label);

/** The selectors of an expression, and the labels that it names: `{ selectors, labels }`. */
export function partsOf(expression) {
  const [selectors, labels] = [[], []];
  parser.parse(expression).iterate({
    enter({ name, type, from, to }) {
      const text = expression.slice(from, to);
      if (type.isError) throw new Error(`no PromQL at ${from}: ${expression}`);
      if (name === "VectorSelector") selectors.push(text);
      if (name === "LabelName") labels.push(text);
    },
  });
  return { selectors, labels };
}
