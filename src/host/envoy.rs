//! Envoy, by proxy-wasm.
//!
//! Each worker thread has a VM of its own with one root context per configuration. [`root`] owns the gate and makes
//! all calls to the provider, [`stream`] is one request, [`worker`] is what they share.

mod abi;
mod document;
mod metrics;
mod root;
mod stream;
mod verify;
mod worker;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    // Also installs the hook that logs a panic.
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context_id| Box::new(root::Root::new(context_id)));
}}
