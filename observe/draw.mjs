// The panels of a dashboard as SVG, in their places.

const [COLUMN, ROW, GAP, TOP] = [50, 33, 10, 66];
const PALETTE = ["#3274d9", "#e0752d", "#37872d", "#8f3bb8", "#c4162a", "#b58a00", "#0e8a8a", "#c15c8d", "#6b7683", "#7a5230"];
const COLOURS = {
  green: "#37872d", purple: "#8f3bb8", blue: "#1f60c4", "light-blue": "#6fa8f5", yellow: "#d8a800", orange: "#ff780a", red: "#c4162a",
};
const [INK, MUTED, LINE, CARD, PAGE] = ["#1f2328", "#59636e", "#e3e6ea", "#ffffff", "#f3f4f6"];

export function draw({ title, panels, start, end }) {
  const height = TOP + ROW * Math.max(...panels.map(({ gridPos: { y, h } }) => y + h)) + GAP;
  const width = 24 * COLUMN + GAP;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12" fill="${INK}">`,
    `<rect width="${width}" height="${height}" fill="${PAGE}"/>`,
    text(GAP + 4, 30, title, 'font-size="20" font-weight="600"'),
    text(GAP + 4, 51, `${Math.round(end - start)} seconds of the demo, with an outage of the provider in the middle. Keys are refreshed every 10 s and serve for 20 s.`, `fill="${MUTED}"`),
    ...panels.flatMap((panel) => card(panel, start, end)),
    "</svg>",
    "",
  ].join("\n");
}

function card({ type, title, gridPos, fieldConfig, series }, start, end) {
  const box = {
    x: gridPos.x * COLUMN + GAP, y: TOP + gridPos.y * ROW, width: gridPos.w * COLUMN - GAP, height: gridPos.h * ROW - GAP,
  };
  const body = type === "stat" ? stat : timeseries;
  return [
    `<rect x="${box.x}" y="${box.y}" width="${box.width}" height="${box.height}" rx="4" fill="${CARD}" stroke="${LINE}"/>`,
    text(box.x + 12, box.y + 21, title, 'font-weight="600"'),
    ...body(box, fieldConfig, series, start, end),
  ];
}

function stat(box, { defaults }, [{ values }], start, end) {
  const [, last] = values.at(-1);
  const colour = COLOURS[defaults.thresholds.steps.findLast(({ value }) => value === null || last >= value).color];
  const plot = { x: box.x, y: box.y + 74, width: box.width, height: box.height - 74 };
  const scale = scales(plot, start, end, Math.max(...values.map(([, value]) => value)) || 1);
  return [
    area(values.map(([time, value]) => [time, 0, value]), scale, colour, 0.18),
    line(values, scale, colour, 1.5),
    text(box.x + box.width / 2, box.y + 60, shown(last, defaults.unit), `font-size="30" font-weight="600" text-anchor="middle" fill="${colour}"`),
  ];
}

function timeseries(box, { defaults, overrides }, series, start, end) {
  const fixed = Object.fromEntries(overrides.map(({ matcher, properties: [{ value }] }) => [matcher.options, COLOURS[value.fixedColor]]));
  const colourOf = (name, at) => fixed[name] ?? PALETTE[at % PALETTE.length];
  const legend = legendOf(series.map(({ name }, at) => [name, colourOf(name, at)]), box);
  const plot = { x: box.x + 58, y: box.y + 36, width: box.width - 74, height: box.height - 66 - 17 * legend.rows };
  const opacity = defaults.custom.fillOpacity / 100;
  const bands = stacked(series, defaults.custom.stacking.mode === "normal");
  const greatest = Math.max(...bands.flatMap((band) => band.map(([, , top]) => top))) || 1;
  const step = niceStep(greatest / 3);
  const scale = scales(plot, start, end, Math.max(step, Math.ceil(greatest / step) * step));
  const ticks = Array.from({ length: Math.max(1, Math.ceil(greatest / step)) + 1 }, (_, at) => at * step);
  const seconds = [...Array(Math.floor((end - start) / 20) + 1).keys()].map((at) => at * 20);
  return [
    ...ticks.flatMap((value) => [
      `<path d="M${plot.x} ${scale.y(value).toFixed(1)}H${plot.x + plot.width}" stroke="${LINE}"/>`,
      text(plot.x - 8, scale.y(value) + 4, shown(value, defaults.unit), `font-size="11" text-anchor="end" fill="${MUTED}"`),
    ]),
    ...seconds.map((second) => text(scale.x(start + second), plot.y + plot.height + 16, clock(second), `font-size="11" text-anchor="middle" fill="${MUTED}"`)),
    ...bands.flatMap((band, at) => [
      ...(opacity > 0 ? [area(band, scale, colourOf(series[at].name, at), opacity)] : []),
      line(band.map(([time, , top]) => [time, top]), scale, colourOf(series[at].name, at), 1.6),
    ]),
    ...legend.marks,
  ];
}

/** Each series as `[time, from, to]`, on top of those before it where they are stacked. */
function stacked(series, onTop) {
  const below = new Map();
  return series.map(({ values }) => values.map(([time, value]) => {
    const from = onTop ? (below.get(time) ?? 0) : 0;
    below.set(time, from + value);
    return [time, from, from + value];
  }));
}

function legendOf(entries, box) {
  const [right, line] = [box.x + box.width - 12, 17];
  let [x, row] = [box.x + 14, 0];
  const placed = entries.map(([name, colour]) => {
    const width = 32 + 6.4 * name.length;
    if (x + width > right && x > box.x + 14) [x, row] = [box.x + 14, row + 1];
    const place = { name, colour, x, row };
    x += width;
    return place;
  });
  const rows = row + 1;
  const first = box.y + box.height - 10 - line * (rows - 1);
  return {
    rows,
    marks: placed.flatMap(({ name, colour, x: at, row: of }) => [
      `<rect x="${at.toFixed(1)}" y="${first + line * of - 7}" width="12" height="4" rx="2" fill="${colour}"/>`,
      text(at + 17, first + line * of, name, 'font-size="11.5"'),
    ]),
  };
}

const scales = ({ x, y, width, height }, start, end, most) => ({
  x: (time) => x + (width * (time - start)) / (end - start),
  y: (value) => y + height * (1 - value / most),
});

/** The runs of points that follow each other: a gap stays a gap. */
function runs(points) {
  return points.reduce((all, point) => {
    const last = all.at(-1);
    if (last && point[0] - last.at(-1)[0] < 1.5) last.push(point);
    else all.push([point]);
    return all;
  }, []);
}

function line(points, scale, colour, width) {
  const path = runs(points).map((run) => `M${run.map(([time, value]) => at(scale, time, value)).join("L")}`).join("");
  return `<path d="${path}" fill="none" stroke="${colour}" stroke-width="${width}" stroke-linejoin="round"/>`;
}

function area(band, scale, colour, opacity) {
  const path = runs(band).map((run) => {
    const upper = run.map(([time, , top]) => at(scale, time, top));
    const lower = run.toReversed().map(([time, bottom]) => at(scale, time, bottom));
    return `M${[...upper, ...lower].join("L")}Z`;
  }).join("");
  return `<path d="${path}" fill="${colour}" fill-opacity="${opacity}"/>`;
}

const at = (scale, time, value) => `${scale.x(time).toFixed(1)} ${scale.y(value).toFixed(1)}`;

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

function shown(value, unit) {
  const digits = value !== 0 && value < 1 ? 2 : value < 10 && !Number.isInteger(value) ? 1 : 0;
  const suffix = { reqps: "/s", s: " s", ms: " ms" }[unit];
  return `${value.toFixed(digits)}${suffix}`;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;

function text(x, y, content, more = "") {
  const escaped = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escaped}</text>`;
}
