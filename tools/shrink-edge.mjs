// Optimises the edge module once more, for size first (Binaryen): a package for the edge is downloaded and compiled often.

import { readFileSync, writeFileSync } from 'node:fs';

import binaryen from 'binaryen';

const [source, target] = process.argv.slice(2);
if (!target) {
  console.error('usage: node tools/shrink-edge.mjs MODULE.wasm SMALLER.wasm');
  process.exit(2);
}
const module = binaryen.readBinary(readFileSync(source));
binaryen.setDebugInfo(false);
binaryen.setOptimizeLevel(2);
binaryen.setShrinkLevel(2);
module.optimize();
if (!module.validate()) throw new Error(`${target} would be no valid module`);
writeFileSync(target, module.emitBinary());
