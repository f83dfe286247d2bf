// Takes out of a module what Envoy need not call (exports.mjs) and all that only this needs, and optimises the rest once more
// (Binaryen). V8 compiles all of a module before Envoy serves.

import { readFileSync, writeFileSync } from 'node:fs';

import binaryen from 'binaryen';

import { EXPORTS } from './exports.mjs';

const [source, target] = process.argv.slice(2);
if (!target) {
  console.error('usage: node tools/shrink.mjs MODULE.wasm SMALLER.wasm');
  process.exit(2);
}
const { MutableGlobals, SignExt, NontrappingFPToInt, BulkMemory, BulkMemoryOpt, ReferenceTypes, Multivalue, SIMD128 } = binaryen.Features;
const wasm = readFileSync(source);
const module = binaryen.readBinary(wasm);
// What rustc emits for its wasm32 targets, SIMD (.cargo/config.toml), and nothing newer: Envoy would refuse it.
module.setFeatures(MutableGlobals | SignExt | NontrappingFPToInt | BulkMemory | BulkMemoryOpt | ReferenceTypes | Multivalue | SIMD128);
for (const { name } of WebAssembly.Module.exports(new WebAssembly.Module(wasm))) {
  if (!EXPORTS.includes(name)) module.removeExport(name);
}
// Names of functions: without them nobody could tell where a module trapped.
binaryen.setDebugInfo(true);
binaryen.setOptimizeLevel(3);
binaryen.setShrinkLevel(0);
module.optimize();
if (!module.validate()) throw new Error(`${target} would be no valid module`);
writeFileSync(target, module.emitBinary());
