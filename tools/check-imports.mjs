// Checks that a module imports only what Envoy offers, and exports what Envoy is to call and nothing else.

import { readFileSync } from 'node:fs';

import { EXPORTS } from './exports.mjs';

const PROXY_WASM = [
  'add_header_map_value', 'call_foreign_function', 'close_stream', 'continue_stream', 'define_metric',
  'dequeue_shared_queue', 'done', 'enqueue_shared_queue', 'get_buffer_bytes', 'get_current_time_nanoseconds',
  'get_header_map_pairs', 'get_header_map_value', 'get_log_level', 'get_metric', 'get_property', 'get_shared_data',
  'get_status', 'grpc_call', 'grpc_cancel', 'grpc_close', 'grpc_send', 'grpc_stream', 'http_call', 'increment_metric',
  'log', 'record_metric', 'register_shared_queue', 'remove_header_map_value', 'replace_header_map_value',
  'resolve_shared_queue', 'send_local_response', 'set_buffer_bytes', 'set_effective_context', 'set_header_map_pairs',
  'set_property', 'set_shared_data', 'set_tick_period_milliseconds',
].map((name) => `env.proxy_${name}`);

const WASI = [
  'args_get', 'args_sizes_get', 'clock_time_get', 'environ_get', 'environ_sizes_get', 'fd_close', 'fd_fdstat_get',
  'fd_read', 'fd_seek', 'fd_write', 'proc_exit', 'random_get',
].map((name) => `wasi_snapshot_preview1.${name}`);

const [path] = process.argv.slice(2);
if (!path) {
  console.error('usage: node tools/check-imports.mjs MODULE.wasm');
  process.exit(2);
}
const module = new WebAssembly.Module(readFileSync(path));
const offered = new Set([...PROXY_WASM, ...WASI]);
const foreign = WebAssembly.Module.imports(module)
  .map(({ module: namespace, name }) => `${namespace}.${name}`)
  .filter((name) => !offered.has(name));
const exported = new Set(WebAssembly.Module.exports(module).map(({ name }) => name));
const missing = EXPORTS.filter((name) => !exported.has(name));
const unneeded = [...exported].filter((name) => !EXPORTS.includes(name));

for (const name of foreign) console.error(`${path}: imports \`${name}\`, which Envoy does not offer`);
for (const name of missing) console.error(`${path}: does not export \`${name}\`, which Envoy calls`);
for (const name of unneeded) console.error(`${path}: exports \`${name}\`, for which the gate has no use`);
if (foreign.length + missing.length + unneeded.length > 0) process.exit(1);
console.log(`${path}: ${WebAssembly.Module.imports(module).length} imports, all offered by Envoy`);
