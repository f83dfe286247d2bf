// Mutates the code that decides and runs the tests on each mutant: first those that kill most at least cost, then all of them on
// what has survived. Fails when a survivor has no reason in accepted.json, and when one that has a reason is killed after all.
//
// usage: node tests/mutants/run.mjs CARGO_MUTANTS [FILE…]

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';

const OUTPUT = 'target/mutants';
const CONFIG = `${OUTPUT}/mutants.toml`;
const QUICK = ['--lib', '--test=config', '--test=cases', '--test=gate'];
const ALL = [...QUICK, '--test=docs', '--test=flow_attacks', '--test=forge', '--test=properties', '--test=vectors'];

const [program, ...files] = process.argv.slice(2);
if (!program) {
  console.error('usage: node tests/mutants/run.mjs CARGO_MUTANTS [FILE…]');
  process.exit(2);
}
const missing = files.filter((file) => !existsSync(file));
if (missing.length > 0) {
  console.error(`no such file: ${missing.join(', ')}`);
  process.exit(2);
}

// A mutant is known by its file and what was done to it where; lines move.
const identify = ({ file, name }) => `${file}: ${name.replace(/^[^ ]+:\d+:\d+: /, '')}`;

function mutate(tests, ...further) {
  const run = spawnSync(program, [
    ...['mutants', '--config', CONFIG, '--output', OUTPUT, '--no-shuffle', '--colors', 'never', ...further],
    ...tests.map((test) => `--cargo-arg=${test}`),
  ], { stdio: 'inherit', env: { ...process.env, CARGO_TARGET_DIR: resolve(OUTPUT, 'build') } });
  // 0: all killed, 2: some survived, 3: some timed out. The rest says that the tests could not be run.
  if (![0, 2, 3].includes(run.status)) process.exit(1);
  const { outcomes } = JSON.parse(readFileSync(`${OUTPUT}/mutants.out/outcomes.json`, 'utf8'));
  return outcomes.filter(({ scenario }) => scenario !== 'Baseline')
    .map(({ scenario, summary }) => ({ file: scenario.Mutant.file, id: identify(scenario.Mutant), summary }));
}

// What was built stays, for the next run.
for (const old of ['mutants.out', 'mutants.out.old']) rmSync(`${OUTPUT}/${old}`, { recursive: true, force: true });
mkdirSync(OUTPUT, { recursive: true });
// `--file` would add to the configuration's files.
const config = readFileSync('.cargo/mutants.toml', 'utf8');
const chosen = `examine_globs = ${JSON.stringify(files)}`;
writeFileSync(CONFIG, files.length === 0 ? config : config.replace(/^examine_globs = \[[^\]]*\]/m, chosen));
const first = mutate(QUICK);
const survived = ({ summary }) => summary === 'MissedMutant';
const last = first.some(survived) ? mutate(ALL, '--iterate').filter(survived) : [];

const counted = (ids) => ids.reduce((counts, id) => counts.set(id, (counts.get(id) ?? 0) + 1), new Map());
const accepted = JSON.parse(readFileSync(new URL('accepted.json', import.meta.url), 'utf8'))
  .flatMap(({ file, mutants }) => mutants.map((mutant) => ({ file, id: `${file}: ${mutant}` })));
const mutated = new Set(first.map(({ file }) => file));
const expected = counted(accepted.filter(({ file }) => files.length === 0 || mutated.has(file)).map(({ id }) => id));
const found = counted(last.map(({ id }) => id));

console.log(`\n${'file'.padEnd(28)} mutants  killed  unviable  survived`);
for (const file of [...mutated].sort()) {
  const own = first.filter((mutant) => mutant.file === file);
  const unviable = own.filter(({ summary }) => summary === 'Unviable').length;
  const surviving = last.filter((mutant) => mutant.file === file).length;
  const columns = [[own.length, 8], [own.length - unviable - surviving, 8], [unviable, 10], [surviving, 10]];
  console.log(file.padEnd(28) + columns.map(([count, width]) => String(count).padStart(width)).join(''));
}

let wrong = false;
for (const id of new Set([...found.keys(), ...expected.keys()])) {
  const [survivors, reasons] = [found.get(id) ?? 0, expected.get(id) ?? 0];
  if (survivors === reasons) continue;
  wrong = true;
  console.error(survivors > reasons ? `survives without a reason: ${id}` : `has a reason, but is killed or gone: ${id}`);
}
process.exit(wrong ? 1 : 0);
