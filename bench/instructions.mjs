// Counts the instructions of a decision, natively under callgrind, and compares them with instructions.json. Unlike times, they
// are the same in every run, so that a few percent more are seen at once.
//
// usage: node bench/instructions.mjs [record]

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const PROGRAM = "target/release/stepgate-bench-core";
const PROFILES = "target/instructions";
const COMMITTED = new URL("instructions.json", import.meta.url);

/** So many decisions are counted, since some find the allocator or a table in another state than others. */
const RUNS = 16;

/** Runs differ by 0.2 % at most (by the hash seeds); the rest is for what a change elsewhere does to the compiler's inlining. */
const TOLERANCE = 0.03;

/** For another compiler, C library, valgrind or kind of processor. The `memcpy` of a processor without AVX2 alone is 5 %. */
const TOLERANCE_ELSEWHERE = 0.2;

/** What is so much better is to be kept. */
const GAIN = 0.15;

const [command] = process.argv.slice(2);
if (![undefined, "record"].includes(command)) throw new Error("usage: node bench/instructions.mjs [record]");

const toolchain = describeToolchain();
const found = count();
if (command === "record") record();
else compare();

/** What the counts depend on beside the source. */
function describeToolchain() {
  const rustc = run("rustc", ["--version"]).stdout.split(" ").slice(0, 2).join(" ");
  const libc = run("getconf", ["GNU_LIBC_VERSION"]).stdout.trim();
  const valgrind = run("valgrind", ["--version"]).stdout.trim();
  const avx2 = / avx2 /.test(readFileSync("/proc/cpuinfo", "utf8")) ? "AVX2" : "no AVX2";
  return [rustc, libc, valgrind, avx2].join(", ");
}

/** `{ scenario: instructions of a decision }`. */
function count() {
  mkdirSync(PROFILES, { recursive: true });
  const scenarios = run(PROGRAM, []).stdout.trim().split("\n");
  return Object.fromEntries(scenarios.map((scenario) => {
    const callgrind = ["--tool=callgrind", "--toggle-collect=*counted*", `--callgrind-out-file=${profile(scenario)}`];
    // In an environment of one variable: its size moves the stack, whose address is part of the hash seeds.
    run("valgrind", [...callgrind, PROGRAM, scenario, String(RUNS)], { PATH: process.env.PATH });
    const [, total] = /^totals: (\d+)$/m.exec(readFileSync(profile(scenario), "utf8"));
    return [scenario, Math.round(total / RUNS)];
  }));
}

function record() {
  writeFileSync(COMMITTED, `${JSON.stringify({ toolchain, instructions: found }, null, 2)}\n`);
  for (const [scenario, instructions] of Object.entries(found)) console.log(row(scenario, figure(instructions)));
}

function compare() {
  const { toolchain: there, instructions: committed } = JSON.parse(readFileSync(COMMITTED, "utf8"));
  const tolerance = toolchain === there ? TOLERANCE : TOLERANCE_ELSEWHERE;
  const [more, less, unknown] = [[], [], []];
  console.log(row("instructions of a decision", "committed", "found", "ratio"));
  for (const scenario of new Set([...Object.keys(committed), ...Object.keys(found)])) {
    const [before, after] = [committed[scenario], found[scenario]];
    const ratio = after / before;
    const [verdict, list] = Number.isNaN(ratio) ? ["unknown", unknown]
      : ratio > 1 + tolerance ? ["more", more]
        : ratio < 1 - Math.max(GAIN, tolerance) ? ["less", less]
          : [""];
    list?.push(scenario);
    console.log(row(scenario, figure(before), figure(after), figure(ratio, 3)), verdict);
  }
  if (toolchain !== there) {
    console.log(`\ncounted with ${toolchain}; committed are the figures of ${there}, so ${percent(tolerance)} either way are taken for noise`);
  }
  if (more.length > 0) {
    console.error(`\nmore than ${percent(tolerance)} over bench/instructions.json; where the instructions go:`);
    for (const scenario of more) console.error(`  callgrind_annotate --inclusive=yes ${profile(scenario)}`);
    console.error("if what they are for is worth them: make instructions-record");
  }
  if (less.length > 0) {
    console.error(`\nwell under bench/instructions.json: ${less.join(", ")}; keep the better figures: make instructions-record`);
  }
  if (unknown.length > 0) {
    console.error(`\nonly in one of bench/core and bench/instructions.json: ${unknown.join(", ")}: make instructions-record`);
  }
  process.exitCode = more.length + less.length + unknown.length > 0 ? 1 : 0;
}

function profile(scenario) {
  return `${PROFILES}/${scenario}.out`;
}

function run(program, given, env = process.env) {
  const ended = spawnSync(program, given, { encoding: "utf8", env });
  if (ended.error) throw ended.error;
  if (ended.status !== 0) throw new Error(`${[program, ...given].join(" ")}: ${ended.stderr}`);
  return ended;
}

function row(scenario, ...figures) {
  return [scenario.padEnd(26), ...figures.map((text) => text.padStart(10))].join(" ");
}

function figure(number = NaN, digits = 0) {
  return Number.isNaN(number) ? "none" : number.toLocaleString("en", { minimumFractionDigits: digits });
}

function percent(share) {
  return `${100 * share} %`;
}
